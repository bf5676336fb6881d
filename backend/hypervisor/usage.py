"""Which domains and volumes of a host use something, managed by KC or not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from xml.etree.ElementTree import Element
from xml.sax.saxutils import unescape

import libvirt

from backend.hypervisor.errors import is_code, is_lost
from backend.hypervisor.volume_xml import VolumeDetails, read_volume
from backend.hypervisor.xml import parse
from backend.text import sanitise

LONGEST_CHAIN = 64
_SOURCE_PATH = re.compile(r"""<source\b[^>]*\s(?:file|dev)=['"]([^'"]*)['"]""")
_QUOTES = {"&apos;": "'", "&quot;": '"'}
_SOURCE_VOLUME = re.compile(r"<source\b[^>]*\svolume=")


def network_users(connection: libvirt.virConnect, name: str) -> list[str]:
    """Return the names of the domains that have a NIC on a libvirt network."""
    return [domain for domain, texts in _domains(connection) if any(_is_on(text, name) for text in texts)]


def _is_on(text: str, network: str) -> bool:
    return any(source.get("network") == network for source in parse(text).iterfind("devices/interface/source"))


def volume_users(connection: libvirt.virConnect, target: str, volumes: Mapping[str, VolumeDetails]) -> list[str]:
    """Return the domains whose disks are, or are backed by, the volume at a path, and overlays of it without a domain.

    `volumes` are the pool's, by path; an overlay is given as `volume NAME`.
    """

    def find_below(path: str) -> str:
        details = volumes.get(path) or look_up(lambda: connection.storageVolLookupByPath(path))
        return details.backing_path if details is not None else ""

    related = {path for path in volumes if target in _chain(path, find_below)} | {target}
    users = []
    served: set[str] = set()
    for domain, texts in _domains(connection):
        # Most domains have nothing to do with the volume, and XML is dear to read.
        roots = [parse(text) for text in texts if _may_concern(text, related, volumes)]
        paths = {path for root in roots for path in _disk_paths(connection, root)}
        chains = {below for path in paths for below in _chain(path, find_below)}
        if target in chains:
            users.append(domain)
            served |= chains
    # An overlay that no domain has is one that is just being made, or a disk that was kept.
    overlays = [path for path, details in volumes.items() if details.backing_path == target]
    users.extend(f"volume {volumes[path].volume.name}" for path in overlays if path not in served)
    return users


def look_up(function: Callable[[], libvirt.virStorageVol]) -> VolumeDetails | None:
    """Return the details of a volume; None where the host knows no such one."""
    try:
        return read_volume(function().XMLDesc())
    except libvirt.libvirtError as error:
        if is_lost(error):
            raise
        return None


def _domains(connection: libvirt.virConnect) -> Iterator[tuple[str, list[str]]]:
    """Yield each domain's name and its XML: as it runs, and as it will start next."""
    for domain in connection.listAllDomains():
        try:
            texts = [domain.XMLDesc()]
            if domain.ID() >= 0:
                texts.append(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        except libvirt.libvirtError as error:
            # Gone since it was listed.
            if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                continue
            raise
        yield sanitise(domain.name()), texts


def _may_concern(text: str, related: set[str], volumes: Mapping[str, VolumeDetails]) -> bool:
    """Return whether a domain's XML has a path that is related, or that is none of the pool's."""
    paths = {unescape(path, _QUOTES) for path in _SOURCE_PATH.findall(text)}
    return _SOURCE_VOLUME.search(text) is not None or any(path in related or path not in volumes for path in paths)


def _disk_paths(connection: libvirt.virConnect, root: Element) -> Iterator[str]:
    """Yield the paths of a domain's disks, and of the chains below them as far as libvirt tells."""
    for source in root.iterfind("devices/disk//source"):
        path = source.get("file") or source.get("dev")
        if path:
            yield path
        elif source.get("volume"):
            details = _find_in_pool(connection, source.get("pool", ""), source.get("volume", ""))
            if details is not None:
                yield details.volume.path


def _find_in_pool(connection: libvirt.virConnect, pool: str, volume: str) -> VolumeDetails | None:
    return look_up(lambda: connection.storagePoolLookupByName(pool).storageVolLookupByName(volume))


def _chain(path: str, find_below: Callable[[str], str]) -> Iterator[str]:
    """Yield a path and those below it."""
    seen: set[str] = set()
    while path and path not in seen and len(seen) < LONGEST_CHAIN:
        seen.add(path)
        yield path
        path = find_below(path)

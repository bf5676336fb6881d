"""From settings to a service: one in this process, or one elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backend.service import Service
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.remote.options import RemoteOptions
    from backend.remote.service import RemoteService


def open_service(settings: Settings, *, operate: bool = True) -> Service:
    """Return the service that the settings ask for; nothing is opened on a host, or asked of one, before it is needed.

    Without `operate`, operations are only written down, for another process to do; those of a remote KC are its own.
    """
    if settings.url:
        return open_remote(settings)
    from backend.hypervisor.host import open_hypervisor  # noqa: PLC0415 - so that a remote KC needs no libvirt
    from backend.local.service import LocalService  # noqa: PLC0415 - as above
    from backend.store.opening import open_store  # noqa: PLC0415 - as above

    store = open_store(settings.store_url, retentions=settings.retentions, etcd=settings.etcd)
    hypervisor = open_hypervisor(settings.libvirt_uri, settings.pool, settings.paths.cache)
    return LocalService(store, hypervisor, settings, operate=operate)


def open_remote(settings: Settings, find_credential: Callable[[], str] | None = None) -> RemoteService:
    """Return the service elsewhere that the settings name; raise RefusedError for a URL that will not do."""
    from backend.remote.service import RemoteService  # noqa: PLC0415 - a local KC needs none

    return RemoteService(describe_remote(settings, find_credential))


def describe_remote(settings: Settings, find_credential: Callable[[], str] | None = None) -> RemoteOptions:
    """Return what is to be known of the remote KC that the settings name.

    What a profile says, and the credential that was kept for it, are for the profile's own URL alone.
    """
    from backend.credentials import Credentials  # noqa: PLC0415 - as above
    from backend.remote.address import parse_address  # noqa: PLC0415 - as above
    from backend.remote.options import DEFAULT_HEADER, RemoteOptions  # noqa: PLC0415 - as above

    address = parse_address(settings.url)
    table = settings.profiles.get(settings.profile, {})
    is_profile = str(table.get("url", "")) == settings.url
    if not is_profile:
        table = {}

    def find() -> str:
        if settings.auth_header or not is_profile:
            return settings.auth_header
        return Credentials(settings.paths).find(settings.profile, address.origin)

    return RemoteOptions(
        address=address,
        cache=settings.paths.cache,
        profile=settings.profile if is_profile else "",
        header=str(table.get("header", "")) or DEFAULT_HEADER,
        find_credential=find_credential or find,
        ca=str(table.get("ca", "")),
        fingerprint=str(table.get("fingerprint", "")),
        is_insecure=table.get("insecure") is True,
    )

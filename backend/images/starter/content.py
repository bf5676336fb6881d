"""What is in the guest: its own scripts, programs with the libraries they need, and the kernel's modules."""

from __future__ import annotations

import fnmatch
import lzma
import posixpath
import shutil
from pathlib import Path

from backend.errors import FailedError
from backend.images.starter import elf
from backend.images.starter.archive import Tree
from backend.images.starter.tools import WHAT, run_tool

GUEST_FILES = Path(__file__).parent / "guest"

# Debian packages whose programs are in the guest; each with a word on why. Their libraries follow by themselves.
PACKAGES = (
    "bash",  # the shell that people type in: history, completion, and no escape codes in the console's log
    "busybox",  # everything else that they use; see guest/init on why there are two
    "dropbear-bin",  # SSH server
    "iproute2",  # addresses, routes, VLAN, VXLAN
    "isc-dhcp-client",  # DHCPv6; busybox here has no client for it
    "lua-yaml",  # with Lua below: reads the seed, whose user-data is YAML
    "lua5.4",
    "ncurses-base",  # what bash knows of terminals
    "ndisc6",  # tells what a router advertises apart from addresses and routes
    "nftables",
    "qemu-guest-agent",
    "radvd",  # advertises the guest itself as a router
)

STATIC_SHELL = "busybox-static"

PROGRAMS = (
    "usr/bin/bash",
    "usr/bin/busybox",
    "usr/bin/dropbearkey",
    "usr/bin/ip",
    "usr/bin/lua5.4",
    "usr/bin/rdisc6",
    "usr/sbin/bridge",
    "usr/sbin/dhclient",
    "usr/sbin/dropbear",
    "usr/sbin/nft",
    "usr/sbin/qemu-ga",
    "usr/sbin/radvd",
)
_DATA = ("etc/iproute2/*", "usr/lib/terminfo/[lsvx]/*", "usr/share/lua/5.4/lyaml/*.lua")
_LOADED_LIBRARIES = ("usr/lib/*/lua/5.4/yaml.so",)

# Modules by name; what they depend on follows by itself. `boot` loads those of the devices that are there, the kernel
# the others when a device or a command asks for them.
MODULES = (
    *("virtio_pci", "virtio_net", "virtio_blk", "virtio_scsi", "virtio_console", "virtio-rng", "virtio_balloon"),
    *("virtio_mem", "virtio_input", "sr_mod", "sd_mod", "ata_piix", "button", "evdev"),
    *("isofs", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "nls_iso8859-1"),
    *("nf_tables", "nft_*", "nf_conntrack", "nf_nat", "nf_log_syslog", "nf_reject_*", "nf_conntrack_bridge"),
    *("bridge", "br_netfilter", "8021q", "vxlan", "tun", "veth", "dummy", "macvlan", "wireguard"),
    *("sch_tbf", "sch_htb", "sch_ingress", "cls_u32", "cls_matchall", "act_police", "sch_netem"),
)

_STRANGE = "This version of KC does not know this Debian release; upload an image with `kc image upload`"


def add_guest_files(tree: Tree, release: str) -> None:
    """Add the scripts and settings beside this module, and what must exist before the first of them runs."""
    for path in sorted(GUEST_FILES.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            mode = 0o755 if content.startswith(b"#!") else 0o644
            tree.add_file(path.relative_to(GUEST_FILES).as_posix(), content, mode)
    tree.nodes["etc/shadow"] = tree.nodes["etc/shadow"].with_mode(0o600)
    for name in ("bin", "sbin", "lib", "lib64"):
        tree.add_link(name, f"usr/{name}")
    for name in ("dev", "proc", "sys", "run", "mnt", "var/log", "var/www", "usr/lib64"):
        tree.add_folder(name)
    tree.add_folder("root", 0o700)
    tree.add_folder("tmp", 0o1777)
    tree.add_link("var/run", "../run")
    # The kernel opens this for the first program's input and output before anything is mounted.
    tree.add_character_device("dev/console", 5, 1)
    # The kernel itself calls this one for modules that are asked for by an alias.
    tree.add_link("usr/sbin/modprobe", "../lib/kc/busybox")
    tree.add_link("usr/sbin/ip", "../bin/ip")
    tree.add_file("etc/os-release", _os_release(release).encode())


def _os_release(release: str) -> str:
    return (
        f'NAME="KC starter"\nID=kc-starter\nID_LIKE=debian\nVERSION_ID={release}\nPRETTY_NAME="KC starter {release}"\n'
    )


def add_programs(tree: Tree, packages: Path) -> None:
    """Add the programs from a folder of unpacked packages, and each library that one of them needs."""
    libraries = _libraries(packages)
    waiting: list[Path] = []
    for name in PROGRAMS:
        waiting.append(_existing(packages, name))
        tree.add_file(name, waiting[-1].read_bytes(), 0o755)
    for pattern in (*_DATA, *_LOADED_LIBRARIES):
        found = sorted(path for path in packages.glob(pattern) if path.is_file())
        if not found:
            raise FailedError(WHAT, f"no package has {pattern}", _STRANGE)
        for path in found:
            tree.add_file(path.relative_to(packages).as_posix(), path.read_bytes())
        waiting += found
    while waiting:
        for name in _needed(waiting.pop()):
            library = libraries.get(name)
            if library is None:
                raise FailedError(WHAT, f"no package has {name}", _STRANGE)
            target = library.relative_to(packages).as_posix()
            if target not in tree.nodes:
                tree.add_file(target, library.read_bytes(), 0o755)
                waiting.append(library)
            if name.startswith("ld-linux"):
                # The path of the loader is written into each program.
                tree.add_link(f"usr/lib64/{name}", f"/{target}")


def add_static_shell(tree: Tree, package: Path) -> None:
    """Add the shell of the boot scripts from a folder with its package, which has the same file name as the other's."""
    tree.add_file("usr/lib/kc/busybox", _existing(package, "usr/bin/busybox").read_bytes(), 0o755)


def only(packages: Path, pattern: str) -> Path:
    """Return the one path in a folder of unpacked packages that a pattern names."""
    found = list(packages.glob(pattern))
    if len(found) != 1:
        raise FailedError(WHAT, f"the packages have {len(found)} of {pattern}", _STRANGE)
    return found[0]


def _existing(packages: Path, name: str) -> Path:
    """Return where a program is; packages differ in whether they say `bin` or `sbin`."""
    swapped = name.replace("/bin/", "/sbin/") if "/bin/" in name else name.replace("/sbin/", "/bin/")
    for candidate in (packages / name, packages / swapped):
        if candidate.is_file() and not candidate.is_symlink():
            return candidate
    raise FailedError(WHAT, f"no package has {name}", _STRANGE)


def _libraries(packages: Path) -> dict[str, Path]:
    """Return the libraries by name; links that lead out of the folder, to this machine's own, are left out."""
    inside = packages.resolve()
    paths = [path for path in sorted(packages.glob("usr/lib/*-linux-gnu*/*.so*")) if path.is_file()]
    return {path.name: path for path in paths if path.resolve().is_relative_to(inside)}


def _needed(path: Path) -> list[str]:
    try:
        return elf.needed(path.read_bytes())
    except ValueError as error:
        raise FailedError(WHAT, f"{path.name}: {error}", "Try again: the package may be damaged") from error


def add_modules(tree: Tree, packages: Path, work: Path) -> None:
    """Add the wanted kernel modules with what they depend on, and the indexes that busybox modprobe reads.

    `work` is a folder that does not exist yet. Modules that the package has compressed are unpacked: busybox may not.
    """
    source = only(packages, "usr/lib/modules/*")
    version = source.name
    all_modules, chosen = work / "all", work / "chosen"
    base = all_modules / "lib/modules" / version
    base.parent.mkdir(parents=True)
    source.rename(base)
    _decompress(base)
    run_tool("depmod", "--basedir", all_modules, version, seconds=120)
    for name in _with_dependencies((base / "modules.dep").read_text()):
        target = chosen / "lib/modules" / version / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (base / name).rename(target)
    for index in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(base / index, chosen / "lib/modules" / version)
    run_tool("depmod", "--basedir", chosen, version, seconds=60)
    for path in sorted(chosen.rglob("*")):
        if path.suffix == ".ko" or path.name in {"modules.dep", "modules.alias", "modules.builtin"}:
            tree.add_file(posixpath.join("usr", path.relative_to(chosen).as_posix()), path.read_bytes())


def _decompress(folder: Path) -> None:
    for path in folder.rglob("*.ko.xz"):
        path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        path.unlink()


def _with_dependencies(modules_dep: str) -> list[str]:
    """Return the paths of the wanted modules and of all they depend on; a pattern that names none is left out."""
    depends = {}
    for line in modules_dep.splitlines():
        path, _, others = line.partition(":")
        depends[path] = others.split()
    names = {path: Path(path).stem.replace("-", "_") for path in depends}
    patterns = [pattern.replace("-", "_") for pattern in MODULES]
    wanted = {path for path, name in names.items() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
    # modules.dep lists the whole closure of each module already.
    return sorted(wanted.union(*(depends[path] for path in wanted)))

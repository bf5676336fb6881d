"""The guest's file tree, and its form as a cpio archive that the kernel unpacks: the same tree gives the same bytes."""

from __future__ import annotations

import gzip
import stat
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from backend.images.starter.tools import EPOCH

_MAGIC = "070701"
_END = "TRAILER!!!"
_ALIGNMENT = 4


@dataclass(frozen=True)
class Node:
    """One entry of a tree: its mode with the file type, its content (a link's target), and a device's numbers."""

    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)

    def with_mode(self, permissions: int) -> Node:
        """Return the same entry with other permissions."""
        return replace(self, mode=stat.S_IFMT(self.mode) | permissions)


@dataclass
class Tree:
    """A file tree in memory, owned by root; paths are relative to its root, and parents appear by themselves."""

    nodes: dict[str, Node] = field(default_factory=dict)

    def add_folder(self, path: str, mode: int = 0o755) -> None:
        """Add a folder and its parents, or set the mode of one that is there."""
        self._add(path, Node(stat.S_IFDIR | mode))

    def add_file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file, in place of one that is there."""
        self._add(path, Node(stat.S_IFREG | mode, content))

    def add_link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(path, Node(stat.S_IFLNK | 0o777, target.encode()))

    def add_character_device(self, path: str, major: int, minor: int) -> None:
        """Add a character device for root alone."""
        self._add(path, Node(stat.S_IFCHR | 0o600, device=(major, minor)))

    def _add(self, path: str, node: Node) -> None:
        for parent in PurePosixPath(path).parents:
            name = str(parent)
            if name != ".":
                self.nodes.setdefault(name, Node(stat.S_IFDIR | 0o755))
        self.nodes[path] = node

    def to_cpio(self) -> bytes:
        """Return the tree as a `newc` archive; parents come before their children, and inode numbers count up."""
        parts = [
            _entry(number, path, self.nodes[path])
            # Sorted by component, so that a folder precedes what is in it.
            for number, path in enumerate(sorted(self.nodes, key=lambda path: path.split("/")), start=1)
        ]
        return b"".join([*parts, _entry(0, _END, Node(0))])

    def to_initrd(self) -> bytes:
        """Return the archive as the kernel takes it: compressed with gzip, which it unpacks fastest when emulated."""
        return gzip.compress(self.to_cpio(), compresslevel=6, mtime=0)


def _entry(number: int, path: str, node: Node) -> bytes:
    """Return header, name and content, each padded; the fields are those of `man 5 cpio`, new ASCII format."""
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(node.mode) else 1
    owner, group, check = 0, 0, 0
    numbers = (number, node.mode, owner, group, links, EPOCH, len(node.content), 0, 0, *node.device, len(name), check)
    header = (_MAGIC + "".join(f"{value:08X}" for value in numbers)).encode() + name
    return _padded(header) + _padded(node.content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)

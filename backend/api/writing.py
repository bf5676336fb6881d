"""Bytes on their way into a file: in large pieces, each written as it came, without being copied together."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from backend.api.problems import HttpError
from backend.errors import FailedError

if TYPE_CHECKING:
    import hashlib

# The kernel takes so many pieces in one call at most (IOV_MAX).
_MOST_PIECES: Final = 1024


class Writer:
    """The end of a file that is written to; `position` is where the next bytes go. Its methods block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.began = self.position = os.fstat(descriptor).st_size

    def rewind(self, position: int) -> None:
        """Go back to a position; what is written there again is the same, so that nothing is cut off."""
        self.began = self.position = position

    def write(self, pieces: Sequence[bytes], hasher: hashlib._Hash | None = None) -> None:
        """Write pieces one after another; raise HttpError (507) where the disk is full, FailedError."""
        if len(pieces) > _MOST_PIECES:
            pieces = [b"".join(pieces)]
        rest = list(pieces)
        try:
            while rest:
                written = os.pwritev(self._descriptor, rest, self.position)
                self.position += written
                rest = _skip(rest, written)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise HttpError(507, "upload", "the disk is full", "make room, and go on") from error
            raise FailedError("upload", f"cannot be written: {error.strerror}", "look at the server's disk") from error
        if hasher is not None:
            for piece in pieces:
                hasher.update(piece)

    def sync(self) -> None:
        """Have the kernel put on disk what was written."""
        os.fdatasync(self._descriptor)

    def cut(self) -> None:
        """Take back what was written."""
        os.ftruncate(self._descriptor, self.began)
        self.position = self.began


def _skip(pieces: list[bytes], count: int) -> list[bytes]:
    """Return what is left of pieces after so many bytes."""
    for index, piece in enumerate(pieces):
        if count < len(piece):
            return [piece[count:], *pieces[index + 1 :]]
        count -= len(piece)
    return []

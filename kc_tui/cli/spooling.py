"""What comes by standard input and must be a file before anything is done with it."""

from __future__ import annotations

import errno
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from backend.errors import DeniedError, FailedError
from backend.paths import make_private
from kc_tui.cli.session import Session

_CHUNK: Final = 1 << 20
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def spool_input(session: Session, action: str) -> Iterator[Path]:
    """Give a file of KC's own with all of standard input in it, gone at the end of the block.

    Nothing is read for somebody who is allowed `action` on nothing.
    """
    _check_allowed(session, action)
    # Beside the documents, where there is room for images; a cache may be in memory.
    folder = make_private(session.settings.paths.data / "spool")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="input-") as file:
            _copy(sys.stdin.buffer, file)
            yield Path(file.name)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise FailedError("standard input", str(error.strerror).lower(), "make room for it") from error


def _check_allowed(session: Session, action: str) -> None:
    allowed = {action, f"{action.partition('.')[0]}.*", "*"}
    if not any(allowed.intersection(actions) for actions, _selector in session.service.access().scopes):
        raise DeniedError(action, "you may not do that", "ask whoever runs this KC")


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    for chunk in iter(lambda: source.read(_CHUNK), b""):
        target.write(chunk)
    target.flush()

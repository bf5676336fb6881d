"""Where KC keeps its things: XDG folders, or one folder named by `KC_HOME`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from backend.errors import FailedError


class Paths(NamedTuple):
    """The folders of one KC: `config`, `data`, `cache`, and `runtime` for what ends with the machine's run."""

    config: Path
    data: Path
    cache: Path
    runtime: Path

    @property
    def config_file(self) -> Path:
        """The settings file; it need not exist."""
        return self.config / "config.toml"

    @property
    def store_file(self) -> Path:
        """The default store."""
        return self.data / "kc.db"


def find_paths(environment: dict[str, str] | None = None) -> Paths:
    """Return the folders that the environment asks for (XDG Base Directory Specification); none is made."""
    variables = os.environ if environment is None else environment
    home = variables.get("KC_HOME")
    if home:
        base = Path(home).expanduser().absolute()
        return Paths(base / "config", base / "data", base / "cache", base / "run")
    user = Path(variables.get("HOME") or Path.home())

    def folder(name: str, default: str) -> Path:
        value = variables.get(name, "")
        # The specification has relative values ignored.
        return (Path(value) if value.startswith("/") else user / default) / "kc"

    data = folder("XDG_DATA_HOME", ".local/share")
    runtime = variables.get("XDG_RUNTIME_DIR", "")
    return Paths(
        folder("XDG_CONFIG_HOME", ".config"),
        data,
        folder("XDG_CACHE_HOME", ".cache"),
        Path(runtime) / "kc" if runtime.startswith("/") else data / "run",
    )


def make_private(folder: Path) -> Path:
    """Make `folder` with mode 0700 where it is missing, and return it; raise FailedError where it cannot be made."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FailedError(
            f"folder {folder}", str(error.strerror or error).lower(), "name another one with KC_HOME"
        ) from error
    return folder


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file at `path` by `data` so that a reader, or a crash, sees the old or the new one whole."""
    make_private(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

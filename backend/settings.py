"""What the environment and `config.toml` ask for; each value is read once, here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from backend.errors import NotFoundError, RefusedError
from backend.model.kinds import ENROLMENT, OPERATION, find_kind
from backend.paths import Paths, find_paths
from backend.store.protocol import EtcdOptions, Retention, Retentions

_EMPTY: Mapping[str, Any] = MappingProxyType({})
# Nobody asks for the versions of an operation, nor for one that was kept long enough.
_OPERATIONS = Retention(versions=1, deleted_days=1.0)
# Old ones are secrets that nobody needs.
_ENROLMENTS = Retention(versions=1, deleted_days=1.0)


class Settings(NamedTuple):
    """The settings of one run: the environment first, then the chosen profile, then the defaults.

    `libvirt_uri` is empty where KC is to find one by itself; `url` names a remote instance, empty for an embedded KC.
    `grace_hours` is how long a deleted object can be brought back with its disks, `operation_days` how long operations
    that have ended are kept (0: for ever), `ssh_idle_minutes` after how long without a key a session over SSH ends (0:
    never).
    """

    paths: Paths
    profile: str = "local"
    libvirt_uri: str = ""
    url: str = ""
    auth_header: str = ""
    store: str = ""
    pool: str = "kc"
    keys: Mapping[str, list[str]] = _EMPTY
    ui: Mapping[str, Any] = _EMPTY
    auth: Mapping[str, Any] = _EMPTY
    serve: Mapping[str, Any] = _EMPTY
    profiles: Mapping[str, dict[str, Any]] = _EMPTY
    grace_hours: float = 24.0
    retentions: Retentions = Retentions()
    etcd: EtcdOptions = EtcdOptions()
    operation_days: float = 7.0
    ssh_idle_minutes: float = 30.0

    def __repr__(self) -> str:
        """Name the profile and the home, and nothing that came with a secret: crash reports quote this."""
        return f"Settings({self.profile!r}, {str(self.paths.config)!r})"

    @property
    def store_url(self) -> str:
        """Where the documents are: `tinydb:PATH` or `etcd://…`."""
        return self.store or f"tinydb:{self.paths.store_file}"


def _read_config(paths: Paths) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - most homes have no settings file

    try:
        return tomllib.loads(paths.config_file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RefusedError(
            f"settings {paths.config_file}", str(error).lower(), "mend the file or move it away"
        ) from error


def _table(config: dict[str, Any], name: str, paths: Paths) -> dict[str, Any]:
    value = config.get(name, {})
    if not isinstance(value, dict):
        raise RefusedError(f"settings {paths.config_file}", f"[{name}] is not a table", "write it as a table")
    return value


def read_auth_table(paths: Paths) -> dict[str, Any]:
    """Return the [auth] table of `config.toml` as the file is now; raise RefusedError for a bad file."""
    return _table(_read_config(paths), "auth", paths)


def _number(table: Mapping[str, Any], name: str, default: float, paths: Paths) -> float:
    value = table.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e6:  # noqa: PLR2004 - sense
        raise RefusedError(f"settings {paths.config_file}", f"{name} is no number from 0 on", "write one")
    return value


def _read_retention(table: Mapping[str, Any], default: Retention, paths: Paths) -> Retention:
    return Retention(
        versions=max(1, int(_number(table, "versions", default.versions, paths))),
        days=_number(table, "days", default.days, paths),
        deleted_days=_number(table, "deletedDays", default.deleted_days, paths),
    )


def _read_retentions(config: dict[str, Any], paths: Paths) -> Retentions:
    history = _table(config, "history", paths)
    default = _read_retention(history, Retention(), paths)
    kinds = {OPERATION.name: _OPERATIONS, ENROLMENT: _ENROLMENTS} | {
        find_kind(word).name: _read_retention(_table(history, word, paths), default, paths)
        for word, value in history.items()
        if isinstance(value, dict)
    }
    return Retentions(default, kinds)


def _read_etcd(config: dict[str, Any], variables: Mapping[str, str], paths: Paths) -> EtcdOptions:
    table = _table(config, "etcd", paths)
    words = {name: str(table.get(name, "")) for name in ("ca", "certificate", "key", "user")}
    return EtcdOptions(**words, password=variables.get("KC_ETCD_PASSWORD", ""))


def load_settings(profile: str = "", environment: dict[str, str] | None = None) -> Settings:
    """Return the settings of this run; raise RefusedError for a bad file, NotFoundError for an unknown profile."""
    variables = dict(os.environ) if environment is None else environment
    paths = find_paths(variables)
    config = _read_config(paths) if paths.config_file.exists() else {}
    profiles = _table(config, "profiles", paths)
    name = profile or variables.get("KC_PROFILE", "") or str(config.get("profile", "local"))
    chosen = profiles.get(name, {})
    if name != "local" and name not in profiles:
        known = ", ".join(sorted({"local", *profiles}))
        raise NotFoundError(f"profile {name}", "no such profile", f"known are {known}")
    if not isinstance(chosen, dict):
        raise RefusedError(f"settings {paths.config_file}", f"profiles.{name} is not a table", "write it as a table")
    keys = {
        command: [value] if isinstance(value, str) else [str(item) for item in value]
        for command, value in _table(config, "keys", paths).items()
    }
    return Settings(
        paths=paths,
        profile=name,
        libvirt_uri=variables.get("KC_LIBVIRT_URI") or str(chosen.get("libvirt", "")),
        url=variables.get("KC_URL") or str(chosen.get("url", "")),
        auth_header=variables.get("KC_AUTH_HEADER", ""),
        store=variables.get("KC_STORE", ""),
        pool=variables.get("KC_POOL") or "kc",
        keys=keys,
        ui=_table(config, "ui", paths),
        auth=_table(config, "auth", paths),
        serve=_table(config, "serve", paths),
        profiles=profiles,
        grace_hours=_number(_table(config, "trash", paths), "hours", 24.0, paths),
        retentions=_read_retentions(config, paths),
        etcd=_read_etcd(config, variables, paths),
        operation_days=_number(_table(config, "operations", paths), "keepDays", 7.0, paths),
        ssh_idle_minutes=_number(_table(config, "ssh", paths), "idleMinutes", 30.0, paths),
    )

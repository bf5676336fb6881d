"""What is to be known of a remote KC before it can be asked anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from backend.remote.address import Address

DEFAULT_HEADER = "Authorization"


def _no_credential() -> str:
    return ""


class RemoteOptions(NamedTuple):
    """One remote KC.

    `profile` is what it is called here, empty for one that the environment names. `header` carries the credential,
    which `find_credential` looks up when it is first needed; empty: none is sent. `ca` is a file of certificates to
    trust instead of the system's, `fingerprint` (`SHA256:…`) the one certificate to trust. `cache` is where uploads
    that were cut are remembered.
    """

    address: Address
    cache: Path
    profile: str = ""
    header: str = DEFAULT_HEADER
    find_credential: Callable[[], str] = _no_credential
    ca: str = ""
    fingerprint: str = ""
    is_insecure: bool = False

    @property
    def login_hint(self) -> str:
        """What gets a credential that holds."""
        return f"kc login {self.profile}" if self.profile else "KC_AUTH_HEADER has no credential that holds here"

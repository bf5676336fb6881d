"""Which credentials are KC's own tokens: those are never shown to anybody else's server, nor can they be guessed."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from backend.auth.protocol import AuthRequest

OWN_PREFIXES: Final = (b"kcg_", b"kct_", b"kcs_")
"""How tokens of KC begin: those with all rights, limited ones, and sessions."""
MAXIMUM_CREDENTIAL: Final = 16_384
"""Bytes; a longer one is shown to nobody."""


def is_own_token(request: AuthRequest) -> bool:
    """Return whether a credential has the form of a token of KC, bare, as a bearer token, or anywhere in Basic."""
    secret = request.parameters
    if request.scheme == "basic":
        try:
            user, _, password = base64.b64decode(secret).partition(b":")
        except binascii.Error:
            return False
        return user.startswith(OWN_PREFIXES) or password.startswith(OWN_PREFIXES)
    return secret.startswith(OWN_PREFIXES) or request.credential.startswith(OWN_PREFIXES)


def is_plain(request: AuthRequest) -> bool:
    """Return whether a credential may stand in a header again: visible ASCII and blanks, none of them at an end."""
    credential = request.credential
    return credential.isascii() and credential.decode("ascii").isprintable() and credential.strip() == credential

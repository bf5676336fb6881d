"""What authenticators are made with: KC's folders and documents, and the key that its own secrets come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backend.auth.keys import MasterKey
    from backend.auth.protocol import Authenticator
    from backend.paths import Paths
    from backend.store.protocol import Store


@dataclass(frozen=True, slots=True)
class AuthContext:
    """See the module; `build` makes another authenticator from a table, for those that combine others."""

    paths: Paths
    store: Store
    key: MasterKey
    build: Callable[[Mapping[str, Any]], Authenticator]

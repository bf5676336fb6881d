"""Short tokens for who has shown who they are: made from a decision, revoked by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.errors import DeniedError

if TYPE_CHECKING:
    from backend.auth.chain import Chain
    from backend.auth.keys import MasterKey
    from backend.auth.protocol import Decision
    from backend.model.documents import Document
    from backend.store.protocol import Store


class Sessions:
    """Makes and ends sessions in a store; its calls block."""

    def __init__(self, store: Store, key: MasterKey, chain: Chain) -> None:
        self._store = store
        self._key = key
        self._chain = chain

    def make(self, decision: Decision) -> tuple[str, Document]:
        """Return the secret and the document of a new session; raise DeniedError for whoever came with a token."""
        from backend.auth.tokens import mint_session  # noqa: PLC0415 - with pydantic

        return mint_session(self._store, self._key, decision)

    def end(self, decision: Decision) -> None:
        """Revoke the session that a decision is about; raise DeniedError where it is about none."""
        from backend.auth.tokens import end_session  # noqa: PLC0415 - as above

        if not decision.token:
            raise DeniedError("session", "this credential is no session's", "there is nothing to end")
        end_session(self._store, decision.token, by=decision.subject)
        self._chain.invalidate()

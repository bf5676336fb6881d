"""The spec of tokens: what each may do, until when; the secret itself is in none of them.

Of a god token the digest of its secret is kept, which is as long as a key and so needs no slow hash. Limited tokens and
sessions follow from KC's master key and their uid: nothing that is in a document makes one.
"""

from __future__ import annotations

import time
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from backend.errors import RefusedError
from backend.model.actions import ANY, check_selector, find_fault
from backend.model.base import Model
from backend.model.documents import format_time, parse_time
from backend.text import sanitise

DEFAULT_SECONDS: Final = 90 * 86400.0
MAXIMUM_SCOPES: Final = 32
MAXIMUM_SELECTOR: Final = 1024
_MAXIMUM_ACTIONS: Final = 128
_MAXIMUM_GROUPS: Final = 2000
_LONGEST_NAME: Final = 512

Text = Annotated[str, StringConstraints(max_length=_LONGEST_NAME)]
Time = Annotated[str, StringConstraints(pattern=r"^[2-9]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$")]


class TokenScope(Model):
    """Actions, and the objects on which they are allowed."""

    actions: list[str] = Field(
        min_length=1, max_length=_MAXIMUM_ACTIONS, description="KIND.VERB such as vm.start, KIND.*, or * for all"
    )
    selector: Annotated[str, StringConstraints(max_length=MAXIMUM_SELECTOR)] = Field(
        default="", description="on which objects: by their metadata, such as tenant=acme; empty for all"
    )

    @field_validator("actions")
    @classmethod
    def _check_actions(cls, actions: list[str]) -> list[str]:
        for action in actions:
            fault = find_fault(action)
            if fault:
                raise ValueError(sanitise(fault, 300))
        return list(dict.fromkeys(actions))

    @field_validator("selector")
    @classmethod
    def _check_selector(cls, selector: str) -> str:
        try:
            check_selector(selector)
        except RefusedError as error:
            raise ValueError(error.why) from None
        return selector.strip()


class TokenSpec(Model):
    """A token; `subject` and `groups` are those of a session, and `digest` that of a god token."""

    type: Literal["god", "limited", "session"]
    scopes: list[TokenScope] | None = Field(
        default=None, max_length=MAXIMUM_SCOPES, description="what it may do; of a session null: what its subject may"
    )
    expires_at: Time | None = Field(
        default_factory=lambda: format_time(time.time() + DEFAULT_SECONDS),
        description="until when it holds; null for ever; 90 days where it is left out",
    )
    subject: Text = ""
    groups: list[Text] = Field(default_factory=list, max_length=_MAXIMUM_GROUPS)
    digest: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = Field(
        default="", description="SHA-256 of a god token; KC's own"
    )

    @field_validator("expires_at")
    @classmethod
    def _check_time(cls, text: str | None) -> str | None:
        if text is None:
            return None
        try:
            parse_time(text)
        except ValueError:
            msg = f"{text} is no time"
            raise ValueError(msg) from None
        whole, _, fraction = text.rstrip("Z").partition(".")
        return f"{whole}.{fraction[:3]:0<3}Z"

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if self.type == "god":
            if self.scopes is None:
                self.scopes = [TokenScope(actions=[ANY])]
            if self.scopes != [TokenScope(actions=[ANY])]:
                msg = ".scopes: a god token may do everything; limited is what has scopes"
                raise ValueError(msg)
        elif self.digest:
            msg = ".digest: only a god token has one"
            raise ValueError(msg)
        if self.type == "limited" and not self.scopes:
            msg = ".scopes: a limited token needs one, such as {actions: [vm.read], selector: tenant=acme}"
            raise ValueError(msg)
        if self.type != "session" and (self.subject or self.groups):
            msg = ".subject: only a session has one; a token acts in its own name"
            raise ValueError(msg)
        return self

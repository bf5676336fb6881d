"""What one types into a list's filter: a selector where it reads as one, else words to look for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from backend.model.documents import Document
from kc_tui.state.listing import Accepts, Entry, accept_words

_SELECTOR: Final = re.compile(r"[=<>~]|\s(?:not)?in\s*\(|\s(?:not)?in\s*$|^\s*(?:metadata|spec|status)\.")


def is_selector(text: str) -> bool:
    """Return whether a text is meant as a selector and not as words."""
    return _SELECTOR.search(text) is not None


def compile_filter(text: str, find: Callable[[str], Document | None]) -> Accepts | None:
    """Return what lets entries through; None where all pass. Raises KCError for a selector that is wrong.

    `find` gives the document of an entry's uid: selectors speak of documents.
    """
    if not is_selector(text):
        return accept_words(text)
    from backend.model.selectors import parse  # noqa: PLC0415 - most lists have no selector

    accepts_document = parse(text)

    def accepts(entry: Entry) -> bool:
        document = find(entry.uid)
        return document is not None and accepts_document(document)

    return accepts

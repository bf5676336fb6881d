"""Searching short lists by what one types: whole words first, letters in order when nothing else is found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

_START: Final = 0
_WORD_START: Final = 1
_INSIDE: Final = 2
_BREAKS: Final = " -_./:"


def _score_word(word: str, text: str) -> int | None:
    at = text.find(word)
    if at < 0:
        return None
    if at == 0:
        return _START
    while at > 0:
        if text[at - 1] in _BREAKS:
            return _WORD_START
        at = text.find(word, at + 1)
    return _INSIDE


def _score(words: Sequence[str], text: str) -> int | None:
    total = 0
    for word in words:
        score = _score_word(word, text)
        if score is None:
            return None
        total += score
    return total


def _score_letters(letters: str, text: str) -> int | None:
    """Return how far the letters lie apart where they occur in their order, else None."""
    first = at = text.find(letters[0])
    for letter in letters[1:]:
        if at < 0:
            return None
        at = text.find(letter, at + 1)
    return None if at < 0 else at - first


def rank(query: str, texts: Iterable[str]) -> list[int]:
    """Return the indexes of the texts that match, best first and else in their order; an empty query matches all.

    Every word of the query must occur in the text; case does not matter. Where no text has them all, texts with the
    query's letters in their order are returned instead (`vst` finds `VM: start`).
    """
    folded = [text.casefold() for text in texts]
    words = query.casefold().split()
    if not words:
        return list(range(len(folded)))
    scored = [(score, index) for index, text in enumerate(folded) if (score := _score(words, text)) is not None]
    if not scored:
        letters = "".join(words)
        found = ((_score_letters(letters, text), index) for index, text in enumerate(folded))
        scored = [(score, index) for score, index in found if score is not None]
    return [index for _, index in sorted(scored)]

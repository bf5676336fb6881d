"""The progress of operations on stderr: one rewritten line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys

from backend.model.documents import Document
from backend.model.kinds import OPERATION
from backend.text import sanitise
from kc_tui.cli.arguments import terminal_width
from kc_tui.cli.columns import describe_amount, describe_retry
from kc_tui.cli.table import clip

_CLEAR = "\r\x1b[K"


def describe_operation(operation: Document) -> str:
    """Return what an operation is doing: `web: step 3 of 6: making the disk`; empty where it rests."""
    from kc_tui.state.operations import shorten  # noqa: PLC0415 - only those that wait see it

    short = shorten(operation)
    target = operation.get("spec", {}).get("target", {}).get("name", "")
    if operation.get("status", {}).get("parked"):
        return f"{target}: waiting for the host to answer"
    if not short["title"] or short["state"] not in ("running", "undoing"):
        return ""
    undoing = "undoing, " if short["state"] == "undoing" else ""
    retry = describe_retry(operation)
    text = f"{target}: {undoing}step {short['step']} of {short['steps']}: {short['title']}"
    return f"{text}, {retry}" if retry else text


def describe_vm(document: Document) -> str:
    """Return how far a VM is that is waited for: `web: running, no address yet`."""
    status = document.get("status", {})
    addresses = status.get("addresses") or []
    address = addresses[0].get("address", "") if addresses else "no address yet"
    return f"{document.get('name', '')}: {status.get('power', 'unknown')}, {address}, waiting until it is ready"


class ProgressLine:
    """Shows one thing at a time; `show` may be handed to the service."""

    def __init__(self, *, quiet: bool) -> None:
        """Write to stderr as it is now, or nothing where `quiet`."""
        self._quiet = quiet
        self._stream = sys.stderr
        self._rewrites = self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._last = ""
        self._percent = -1
        self._drawn = False

    def show(self, document: Document) -> None:
        """Show where an operation, or a VM that is waited for, is."""
        if self._quiet:
            return
        if document.get("kind") == OPERATION.name:
            text = sanitise(describe_operation(document))
            amount = describe_amount(document)
            share = (f"  {amount}" if amount else "") + f"  {document.get('status', {}).get('percent', 0)} %"
        else:
            text, share = sanitise(describe_vm(document)), ""
        if text:
            self._write(text, share)

    def show_sent(self, name: str, done: int, whole: int) -> None:
        """Show how much of a file has been sent; on a terminal alone, and only what is news."""
        percent = 100 * done // whole if whole else 100
        if self._rewrites and not self._quiet and percent != self._percent:
            self._percent = percent
            self._write(f"{sanitise(name)}: sending", f"  {percent} %")

    def _write(self, text: str, share: str) -> None:
        if self._rewrites:
            width = terminal_width(self._stream.fileno()) - 1
            # Said first: a ctrl-c may come as soon as the line can be seen.
            self._drawn = True
            self._stream.write(f"{_CLEAR}{clip(text, width - len(share))}{share}")
        elif text != self._last:
            self._stream.write(f"{text}\n")
        self._last = text
        self._stream.flush()

    def clear(self) -> None:
        """Take the rewritten line away, for other words to stand there."""
        if self._drawn:
            self._stream.write(_CLEAR)
            self._stream.flush()
            self._drawn = False

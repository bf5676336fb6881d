"""What is shown of an operation: in the row of what it works on, in the activity list, and step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from backend.model.documents import Document, parse_time
from kc_tui.state.formatting import format_age, format_bytes, format_duration
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.lines import BLANK, Line, heading, labelled
from kc_tui.state.listing import Entry, natural_key
from kc_tui.state.roles import Role
from kc_tui.state.table import Align, Cell, Column, Progress, Row, Run

COLUMNS: Final = (
    Column("when", "WHEN", 6, lasting=True),
    Column("what", "WHAT", 9, lasting=True),
    Column("name", "ON", 16, weight=1, widest=34, lasting=True),
    Column("state", "STATE", 9),
    Column("took", "TOOK", 8, align=Align.RIGHT, rank=1),
    Column("why", "WHY", 18, weight=4, rank=2),
)

_BUSY: Final = {
    "vm.create": "creating",
    "vm.start": "starting",
    "vm.stop": "stopping",
    "vm.reboot": "rebooting",
    "vm.delete": "deleting",
    "vm.disown": "leaving",
    "vm.pause": "pausing",
    "vm.resume": "resuming",
    "vm.reconcile": "mending",
    "vm.snapshot": "snapshot",
    "vm.restore-snapshot": "restoring",
    "vm.delete-snapshot": "changing",
    "network.reconcile": "mending",
    "image.create": "uploading",
}
_ING: Final = {"create": "creating", "delete": "deleting", "update": "changing", "apply": "applying"}
_STATE_WORDS: Final = {"succeeded": "done", "queued": "waiting"}
ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that KC told the user and that was no operation: an error, mostly. `at` is in Unix seconds."""

    number: int
    at: float
    what: str
    why: str
    hint: str = ""


def shorten(operation: Document) -> dict[str, Any]:
    """Return the short form of an operation's document, the same that a VM's `status.operation` has."""
    status = operation.get("status", {})
    steps = status.get("undo" if status.get("state") == "undoing" else "steps") or []
    done = sum(1 for step in steps if step.get("state") == "done")
    current = next((step for step in steps if step.get("state") != "done"), None)
    return {
        "name": operation.get("name", ""),
        "type": operation.get("spec", {}).get("type", ""),
        "state": status.get("state", "queued"),
        "step": min(done + 1, len(steps)),
        "steps": len(steps),
        "title": current.get("title", "") if current else "",
        "percent": status.get("percent", 0),
        "parked": bool(status.get("parked")),
    }


def describe_verb(operation_type: str) -> str:
    """Return what an operation of a type does, such as `starting`."""
    verb = operation_type.rpartition(".")[2]
    return _BUSY.get(operation_type) or _ING.get(verb) or (f"{verb.removesuffix('e')}ing" if verb else "changing")


def describe_busy(operation: Mapping[str, Any]) -> str:
    """Return the one word for what an operation (in short form) does to its object, such as `starting`."""
    if operation.get("state") == "undoing":
        return "undoing"
    return "waiting" if operation.get("parked") else describe_verb(str(operation.get("type", "")))


def describe_progress(operation: Mapping[str, Any]) -> Progress:
    """Return the progress that takes the place of a row's figures."""
    steps = operation.get("steps", 0)
    if operation.get("parked"):
        return Progress("waiting for the host to answer", None, Role.WARN)
    if not steps:
        return Progress("waiting for its turn", 0.0)
    text = f"step {operation.get('step', 0)} of {steps}: {operation.get('title', '')}"
    if operation.get("state") == "undoing":
        return Progress(f"undoing, {text}", None, Role.WARN)
    percent = operation.get("percent", 0)
    return Progress(text, percent / 100 if isinstance(percent, (int, float)) else None)


def read_time(value: object) -> float | None:
    """Return the Unix seconds of a time in a document; None where it is none."""
    try:
        return parse_time(str(value)) if value else None
    except ValueError:
        return None


def read_error(operation: Document) -> tuple[str, str]:
    """Return why an operation failed, and what to do next; both empty where it has no error."""
    error = operation.get("status", {}).get("error")
    if not isinstance(error, dict):
        return "", ""
    return str(error.get("detail", "")), str(error.get("hint", ""))


def build_entry(operation: Document, now: float, glyphs: Glyphs) -> Entry:
    """Return one line of the activity list."""
    status, spec = operation.get("status", {}), operation.get("spec", {})
    state = str(status.get("state", "queued"))
    started = read_time(status.get("startedAt") or status.get("queuedAt") or operation.get("createdAt")) or 0.0
    ended = read_time(status.get("endedAt"))
    target = str(spec.get("target", {}).get("name", ""))
    what = describe_verb(str(spec.get("type", "")))
    why = read_error(operation)[0]
    is_active = state not in ENDED
    word, sign, role = _judge(state, glyphs)
    cells = (
        Cell(format_age(max(0.0, now - started), glyphs), Role.MUTED),
        Cell(what),
        Cell(target, Role.STRONG if is_active else Role.TEXT),
        Cell(word, role),
        Cell(format_duration(None if ended is None else ended - started, glyphs), Role.MUTED),
        Cell(why, Role.MUTED),
    )
    progress = describe_progress(shorten(operation)) if is_active else None
    return Entry(
        uid=str(operation.get("uid", "")),
        name=str(operation.get("name", "")),
        row=Row(str(operation.get("uid", "")), (cells, progress), cells, Cell(sign, role), progress),
        search="\n".join((what, target, word, why, str(operation.get("name", "")))).casefold(),
        sort_keys={"name": natural_key(target), "when": -started, "what": what, "state": word, "why": why},
        state=state,
    )


def _judge(state: str, glyphs: Glyphs) -> tuple[str, str, Role]:
    word = _STATE_WORDS.get(state, state)
    match state:
        case "succeeded":
            return word, glyphs.live, Role.OK
        case "failed":
            return word, glyphs.failed, Role.DANGER
        case "cancelled":
            return word, glyphs.stopped, Role.MUTED
        case _:
            return word, glyphs.changing, Role.ACCENT


def build_notice(notice: Notice, now: float, glyphs: Glyphs) -> Entry:
    """Return one line of the activity list for what was no operation."""
    key = f"notice:{notice.number}"
    cells = (
        Cell(format_age(max(0.0, now - notice.at), glyphs), Role.MUTED),
        Cell("error"),
        Cell(notice.what),
        Cell("failed", Role.DANGER),
        Cell(glyphs.dash, Role.MUTED),
        Cell(notice.why, Role.MUTED),
    )
    return Entry(
        uid=key,
        name=notice.what,
        row=Row(key, cells, cells, Cell(glyphs.failed, Role.DANGER)),
        search=f"error\n{notice.what}\n{notice.why}\nfailed".casefold(),
        sort_keys={
            "name": natural_key(notice.what), "when": -notice.at, "what": "error", "state": "failed", "why": notice.why,
        },
        state="notice",
    )  # fmt: skip


def describe_notice(notice: Notice) -> list[Line]:
    """Return all that was told: what, why and what to do next."""
    lines: list[Line] = [(Run(notice.what, Role.STRONG),), BLANK, (Run(as_sentence(notice.why)),)]
    return [*lines, BLANK, (Run(as_sentence(notice.hint), Role.ACCENT),)] if notice.hint else lines


def describe_operation(operation: Document, glyphs: Glyphs) -> list[Line]:
    """Return all about an operation: its error first, then each step with its time."""
    status, spec = operation.get("status", {}), operation.get("spec", {})
    target = spec.get("target", {})
    state = str(status.get("state", "queued"))
    word, sign, role = _judge(state, glyphs)
    lines: list[Line] = [
        (Run(f"{describe_verb(str(spec.get('type', '')))} {target.get('name', '')}", Role.STRONG),),
        (Run(f"{sign} {word}", role), Run(f"  {operation.get('name', '')}", Role.MUTED)),
    ]
    why, hint = read_error(operation)
    if why:
        lines += [BLANK, (Run(as_sentence(why), Role.DANGER if state == "failed" else Role.WARN),)]
        if hint:
            lines.append((Run(as_sentence(hint), Role.ACCENT),))
    for key, title in (("steps", "Steps"), ("undo", "Undone again")):
        steps = status.get(key) or []
        if steps:
            lines += [BLANK, heading(title), *(_draw_step(step, glyphs) for step in steps)]
    lines += [BLANK, labelled("by", Run(str(operation.get("updatedBy", "")), Role.MUTED))]
    lines.append(labelled("asked", Run(clock_time(operation.get("createdAt")), Role.MUTED)))
    return lines


def _draw_step(step: Mapping[str, Any], glyphs: Glyphs) -> Line:
    state = step.get("state")
    sign, role = {
        "done": (glyphs.step_done, Role.OK),
        "running": (glyphs.step_now, Role.ACCENT),
        "failed": (glyphs.failed, Role.DANGER),
    }.get(str(state), (glyphs.step_ahead, Role.MUTED))
    text = Run(f" {step.get('title', '')}", Role.TEXT if state in ("running", "failed", "done") else Role.MUTED)
    started, ended = read_time(step.get("startedAt")), read_time(step.get("endedAt"))
    parts = [Run(sign, role), text]
    progress = step.get("progress")
    if isinstance(progress, dict) and progress.get("total"):
        done, total = progress.get("done", 0), progress["total"]
        parts.append(Run(f"  {format_bytes(done)} of {format_bytes(total)}", Role.MUTED))
    elif started is not None and ended is not None:
        parts.append(Run(f"  {format_duration(ended - started)}", Role.MUTED))
    return tuple(parts)


def clock_time(value: object) -> str:
    """Return a time of a document as the host's clock shows it."""
    import time  # noqa: PLC0415 - for detail panes only

    at = read_time(value)
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def as_sentence(text: str) -> str:
    """Return a text with a capital and a full stop."""
    closed = text if not text or text[-1] in ".!?:" else f"{text}."
    return closed[:1].upper() + closed[1:]

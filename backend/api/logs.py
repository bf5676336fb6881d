"""The log: a JSON object a line, made of what is named here and nothing else, so that no secret can be among it."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from backend.errors import FailedError
from backend.model.documents import format_time
from backend.text import sanitise

_LONGEST = 2000
_requests = logging.getLogger("kc.requests")
_LOGGERS = ("kc", "backend", "uvicorn", "asyncio")


class JsonFormatter(logging.Formatter):
    """Makes the line of a record: time, level, logger and message, then the fields that it brought as `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; every text in it is sanitised."""
        entry: dict[str, Any] = {
            "time": format_time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": sanitise(record.getMessage(), _LONGEST),
        }
        entry |= {key: _clean(value) for key, value in getattr(record, "fields", {}).items()}
        if record.exc_info and record.exc_info[0] is not None:
            # The frames alone: values of variables, and what an error quotes, may hold what nobody is to read.
            entry["error"] = record.exc_info[0].__name__
            entry["trace"] = _list_frames(record)
        return json.dumps(entry, ensure_ascii=True)


def _clean(value: Any) -> Any:
    return sanitise(value, _LONGEST) if isinstance(value, str) else value


def _list_frames(record: logging.LogRecord) -> list[str]:
    import traceback  # noqa: PLC0415 - for faults alone

    trace = record.exc_info[2] if record.exc_info else None
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]


def configure_logs(path: str, *, level: str = "info") -> logging.Handler:
    """Have KC's and the server's loggers write JSON lines to a file, or to stderr (an empty `path`).

    Returns the handler, for `remove_logs`; raises FailedError for a file that cannot be written.
    """
    try:
        stream: TextIO | None = None if path else sys.stderr
        handler = logging.FileHandler(Path(path), encoding="utf-8") if path else logging.StreamHandler(stream)
    except OSError as error:
        raise FailedError(f"log {path}", str(error.strerror or error).lower(), "name another file") from error
    handler.setFormatter(JsonFormatter())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level.upper() if name == "kc" else logging.WARNING)
        logger.propagate = False
    return handler


def remove_logs(handler: logging.Handler) -> None:
    """Undo `configure_logs`."""
    for name in _LOGGERS:
        logging.getLogger(name).removeHandler(handler)
        logging.getLogger(name).propagate = True
    handler.close()


def note_request(fields: Mapping[str, Any], started: float, status: int) -> None:
    """Log an answered request; `started` is of `time.perf_counter`."""
    if _requests.isEnabledFor(logging.INFO):
        seconds = round(time.perf_counter() - started, 6)
        _requests.info("request", extra={"fields": {**fields, "status": status, "seconds": seconds}})


def note_failure(request_id: str, route: str) -> None:
    """Log the fault that is being handled, under its request's id."""
    _requests.exception("internal error", extra={"fields": {"requestId": request_id, "route": route}})

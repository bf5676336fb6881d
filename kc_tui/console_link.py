"""A serial console's bytes between the service's blocking stream and the event loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from backend.errors import FailedError, KCError
from backend.service import ConsoleStream

HIGH_WATER: Final = 256 * 1024
"""Bytes that may wait for the event loop; beyond them nothing more is read, and the guest waits."""
_READ_SECONDS: Final = 0.5

_log = logging.getLogger(__name__)


class ConsoleLink:
    """Two daemon threads on one stream: one reads, one writes; data is handed over in as few pieces as can be."""

    def __init__(
        self,
        opener: Callable[[], ConsoleStream],
        on_loop: Callable[[Callable[[], object]], None],
        on_data: Callable[[bytes], object],
        on_end: Callable[[KCError | None], object],
    ) -> None:
        self._opener = opener
        self._on_loop = on_loop
        self._on_data = on_data
        self._on_end = on_end
        self._stream: ConsoleStream | None = None
        self._closed = False
        self._paused = False
        self._waiting = bytearray()
        self._room = threading.Condition()
        self._keys: SimpleQueue[bytes | None] = SimpleQueue()
        self.ended = False

    def start(self) -> None:
        """Open the stream and begin to read."""
        threading.Thread(target=self._read, name="kc-console-read", daemon=True).start()

    def send(self, data: bytes) -> None:
        """Send keys to the guest; never blocks."""
        self._keys.put(data)

    def pause(self) -> None:
        """Read no more for now: what was read has not been shown yet."""
        with self._room:
            self._paused = True

    def resume(self) -> None:
        """Read on."""
        with self._room:
            self._paused = False
            self._room.notify_all()

    def close(self) -> None:
        """End the stream; no callback comes any more."""
        with self._room:
            self._closed = True
            self._room.notify_all()
        self._keys.put(None)
        stream = self._stream
        if stream is not None:
            # Closing may talk to the host; the event loop must not wait for it.
            threading.Thread(target=self._close_stream, args=(stream,), name="kc-console-close", daemon=True).start()

    def _read(self) -> None:
        error: KCError | None = None
        try:
            stream = self._opener()
            self._stream = stream
            if self._closed:
                self._close_stream(stream)
                return
            threading.Thread(target=self._write, args=(stream,), name="kc-console-write", daemon=True).start()
            while not self._closed and (data := stream.read(_READ_SECONDS)) != b"":
                if data:
                    self._hand_over(data)
        except KCError as caught:
            error = caught
        except Exception as caught:  # noqa: BLE001 - part of the gateway's boundary: the screen shows why it ended
            _log.error("unexpected error on a console", exc_info=caught)
            error = FailedError("console", f"unexpected error: {type(caught).__name__}: {caught}")
        self._keys.put(None)
        if self._stream is not None:
            self._close_stream(self._stream)
        self._on_loop(lambda: self._end(error))

    def _hand_over(self, data: bytes) -> None:
        with self._room:
            was_empty = not self._waiting
            self._waiting += data
        if was_empty:
            self._on_loop(self._deliver)
        with self._room:
            self._room.wait_for(lambda: self._closed or (not self._paused and len(self._waiting) < HIGH_WATER))

    def _deliver(self) -> None:
        with self._room:
            data = bytes(self._waiting)
            self._waiting.clear()
            self._room.notify_all()
        if data and not self._closed:
            self._on_data(data)

    def _end(self, error: KCError | None) -> None:
        self.ended = True
        if not self._closed:
            self._on_end(error)

    def _write(self, stream: ConsoleStream) -> None:
        while (data := self._keys.get()) is not None:
            try:
                stream.write(data)
            except KCError as error:
                # The reader meets the same end and tells of it.
                _log.info("console: %s", error)
                return

    def _close_stream(self, stream: ConsoleStream) -> None:
        try:
            stream.close()
        except KCError as error:
            _log.info("closing a console: %s", error)

"""Calls that may never return, made on threads of their own so that their callers always do."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class LateError(Exception):
    """A call did not return before its deadline; `started` tells whether a thread was free for it at all."""

    def __init__(self, *, started: bool) -> None:
        super().__init__(started)
        self.started = started


class CrowdedError(Exception):
    """So many calls hang already that no further one is made."""


class _Task(Generic[T]):
    """One call: its outcome, and whether its caller still waits for it."""

    def __init__(self, function: Callable[[], T], dispose: Callable[[T], None] | None) -> None:
        self._function: Callable[[], T] | None = function
        self._dispose = dispose
        self._error: BaseException | None = None
        self._values: list[T] = []
        self.done = threading.Event()
        self.started = False
        self.abandoned = False

    def perform(self) -> None:
        """Make the call and keep what came of it."""
        function, self._function = self._function, None
        try:
            if function is not None:
                self._values.append(function())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
            self._error = error
        finally:
            # What the function holds (a connection, a handle) is not to outlive the call on this thread.
            del function

    def drop(self) -> None:
        """Let go of an outcome that nobody waits for."""
        while self._values:
            value = self._values.pop()
            if self._dispose is not None:
                self._dispose(value)

    def outcome(self) -> T:
        """Return or raise what the call did."""
        if self._error is not None:
            raise self._error
        return self._values[0]


class Lane:
    """At most `size` calls at a time; those that hang are given up and replaced until `stuck_limit` of them do.

    Its threads start with the first calls, never keep the interpreter from ending, and wait for more work until
    `close`.
    """

    def __init__(self, name: str, size: int, stuck_limit: int) -> None:
        self._name = name
        self._size = size
        self._stuck_limit = stuck_limit
        self._tasks: deque[_Task[object]] = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._stuck = 0
        self._closed = False

    def run(self, function: Callable[[], T], deadline: float, dispose: Callable[[T], None] | None = None) -> T:
        """Return what `function` returns within `deadline` seconds; `dispose` gets a result that came too late.

        Raises LateError, CrowdedError, and whatever the function raises.
        """
        task = _Task(function, dispose)
        with self._changed:
            if self._stuck >= self._stuck_limit:
                raise CrowdedError
            self._tasks.append(task)  # type: ignore[arg-type] # a queue of calls of any type
            self._find_thread()
        in_time = False
        try:
            in_time = task.done.wait(deadline)
        finally:
            # Also when the wait itself is interrupted, by ctrl-c say.
            if not in_time:
                in_time = self._give_up(task)
        if not in_time:
            raise LateError(started=task.started)
        return task.outcome()

    def close(self) -> None:
        """Let the idle threads end; those that hang end when their calls do."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _find_thread(self) -> None:
        if len(self._tasks) <= self._idle:
            self._changed.notify()
        elif self._threads - self._stuck < self._size:
            self._threads += 1
            threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _give_up(self, task: _Task[T]) -> bool:
        """Note that nobody waits for the call any more; True when it ended in this very moment."""
        with self._changed:
            if task.done.is_set():
                return True
            if task.started:
                task.abandoned = True
                self._stuck += 1
                if self._tasks:
                    self._find_thread()
            else:
                self._tasks.remove(task)  # type: ignore[arg-type] # as above
            return False

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._tasks and not self._closed:
                    self._changed.wait()
                self._idle -= 1
                if not self._tasks:
                    self._threads -= 1
                    return
                task = self._tasks.popleft()
                task.started = True
            task.perform()
            with self._changed:
                # Under the lock, so that a caller either sees the outcome or has given up before.
                task.done.set()
                abandoned = task.abandoned
            if abandoned:
                task.drop()
                if self._retire():
                    return
            del task

    def _retire(self) -> bool:
        """Take a call off the stuck ones; True when this thread has been replaced meanwhile."""
        with self._changed:
            self._stuck -= 1
            if self._threads - self._stuck > self._size:
                self._threads -= 1
                return True
            return False

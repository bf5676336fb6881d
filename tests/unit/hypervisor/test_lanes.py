"""Calls that hang cost their callers a deadline, and the process a bounded number of threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from backend.hypervisor.lanes import CrowdedError, Lane, LateError


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def threads(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


def wait_until(condition: object, seconds: float = 5.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_a_call_returns_or_raises_what_its_function_does() -> None:
    lane = Lane("lane-a", 1, 1)
    assert lane.run(lambda: 42, 1) == 42
    with pytest.raises(ZeroDivisionError):
        lane.run(lambda: 1 // 0, 1)
    assert threads("lane-a") == 1
    lane.close()
    wait_until(lambda: threads("lane-a") == 0)


def test_a_call_that_hangs_is_given_up_and_the_next_one_runs(gate: threading.Event) -> None:
    lane = Lane("lane-b", 1, 2)
    began = time.monotonic()
    with pytest.raises(LateError) as caught:
        lane.run(gate.wait, 0.1)
    assert time.monotonic() - began < 1
    assert caught.value.started
    assert lane.run(lambda: "next", 1) == "next"


def test_too_many_that_hang_let_no_further_one_in_until_they_end(gate: threading.Event) -> None:
    lane = Lane("lane-c", 1, 2)
    for _ in range(2):
        with pytest.raises(LateError):
            lane.run(gate.wait, 0.05)
    began = time.monotonic()
    with pytest.raises(CrowdedError):
        lane.run(lambda: 1, 5)
    assert time.monotonic() - began < 0.5
    assert threads("lane-c") == 2
    gate.set()
    wait_until(lambda: lane._stuck == 0)
    assert lane.run(lambda: 1, 1) == 1
    wait_until(lambda: threads("lane-c") == 1)


def test_a_call_that_never_began_says_so(gate: threading.Event) -> None:
    lane = Lane("lane-d", 1, 4)
    busy = threading.Thread(target=lambda: lane.run(gate.wait, 5))
    busy.start()
    wait_until(lambda: lane._threads == 1 and lane._idle == 0)
    with pytest.raises(LateError) as caught:
        lane.run(lambda: pytest.fail("it was given up"), 0.05)
    assert not caught.value.started
    gate.set()
    busy.join(5)
    assert lane.run(lambda: "free", 1) == "free"


def test_what_comes_too_late_is_disposed_of(gate: threading.Event) -> None:
    lane = Lane("lane-e", 1, 1)
    disposed: list[str] = []

    def slow() -> str:
        gate.wait()
        return "connection"

    with pytest.raises(LateError):
        lane.run(slow, 0.05, disposed.append)
    gate.set()
    wait_until(lambda: disposed)
    assert disposed == ["connection"]


def test_calls_run_beside_each_other_up_to_the_size_of_the_lane(gate: threading.Event) -> None:
    lane = Lane("lane-f", 3, 1)
    inside: list[int] = []

    def enter(number: int) -> None:
        inside.append(number)
        gate.wait()

    callers = [threading.Thread(target=lane.run, args=(lambda number=number: enter(number), 5)) for number in range(5)]
    for caller in callers:
        caller.start()
    wait_until(lambda: len(inside) == 3)
    time.sleep(0.05)
    assert len(inside) == 3
    gate.set()
    for caller in callers:
        caller.join(5)
    assert sorted(inside) == [0, 1, 2, 3, 4]
    assert threads("lane-f") == 3

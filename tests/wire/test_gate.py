"""A pass is handed to the first in line, and never lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.wire.blocking.gate import Gate
from tests.wire.scripted import eventually


def waiting(gate: Gate, count: int) -> None:
    eventually(lambda: len(gate._waiting) == count)


def test_so_many_pass_and_no_more() -> None:
    gate = Gate(2)
    assert [gate.passes() for _ in range(3)] == [True, True, False]
    assert not gate.waits(0.001)
    gate.give_back()
    assert gate.waits(0.0)
    assert not gate.passes()


def test_who_is_in_line_passes_before_who_comes_now() -> None:
    gate, order = Gate(1), []
    assert gate.passes()
    threads = []
    for name in "abc":
        threads.append(threading.Thread(target=lambda name=name: order.append(name) if gate.waits(inf) else None))
        threads[-1].start()
        waiting(gate, len(threads))
    for count, thread in enumerate(threads):
        gate.give_back()
        assert not gate.passes()
        thread.join(5)
        assert order == list("abc")[: count + 1]
    gate.give_back()
    assert gate.passes()


class Turn:
    """A lock whose wait ends as the test says."""

    ends: Callable[[], bool]

    def acquire(self, timeout: float | None = None) -> bool:
        return True if timeout is None else Turn.ends()

    def release(self) -> None:
        """Nobody waits."""


@pytest.mark.parametrize("handed", [True, False])
def test_a_pass_that_comes_with_the_end_of_the_wait_is_taken(handed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(1)
    assert gate.passes()
    monkeypatch.setattr("meshsdk.wire.blocking.gate.Lock", Turn)
    monkeypatch.setattr(Turn, "ends", lambda: handed and gate.give_back() is not None, raising=False)
    assert gate.waits(1.0) == handed
    assert not gate._waiting
    gate.give_back()
    assert gate.passes()


@pytest.mark.parametrize("handed", [True, False])
def test_an_interrupted_wait_leaves_the_line_and_no_pass_behind(handed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(1)
    assert gate.passes()

    def interrupt() -> bool:
        if handed:
            gate.give_back()
        raise KeyboardInterrupt

    monkeypatch.setattr("meshsdk.wire.blocking.gate.Lock", Turn)
    monkeypatch.setattr(Turn, "ends", interrupt, raising=False)
    with pytest.raises(KeyboardInterrupt):
        gate.waits(1.0)
    assert not gate._waiting
    if not handed:
        gate.give_back()
    assert gate.passes()
    assert not gate.passes()


# Invariant: never more inside than the limit, and after all have left as many pass as in the beginning.
@given(limit=st.integers(1, 4), steps=st.lists(st.booleans(), max_size=40))
def test_passes_are_kept_count_of(limit: int, steps: list[bool]) -> None:
    gate, inside = Gate(limit), 0
    for comes in steps:
        if comes:
            passed = gate.passes()
            assert passed == (inside < limit)
            inside += passed
        elif inside:
            gate.give_back()
            inside -= 1
    for _ in range(inside):
        gate.give_back()
    assert [gate.passes() for _ in range(limit + 1)] == [True] * limit + [False]


def test_threads_that_come_and_go_lose_none() -> None:
    gate, inside, most = Gate(3), [], []

    def work() -> None:
        for _ in range(200):
            if gate.passes() or gate.waits(0.0005):
                inside.append(1)
                most.append(len(inside))
                inside.pop()
                gate.give_back()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert max(most) <= 3
    assert not gate._waiting
    assert [gate.passes() for _ in range(4)] == [True, True, True, False]

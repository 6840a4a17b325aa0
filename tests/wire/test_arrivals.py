"""A thread looks for a reply before it sleeps only where that is likely to be cheaper, and never past a bound."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from math import inf
from typing import cast

import pytest

from meshsdk.wire.blocking.waits import Arrivals, Late

LOOK = 0.001
EACH = 0.0001  # what one look takes here


class Scripted:
    """A poller and its clock: the reply comes `after` so many seconds of a wait."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due = inf
        self.same_cpu = False  # nothing comes while somebody looks
        self.looks = 0
        self.sleeps: list[float | None] = []  # the bound of each, ms

    def after(self, seconds: float) -> None:
        self.due = self.now + seconds
        self.looks, self.sleeps = 0, []

    def clock(self) -> float:
        return self.now

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        if timeout == 0:
            self.looks += 1
            self.now += EACH
            self.due += EACH if self.same_cpu else 0
        else:
            self.sleeps.append(timeout)
            self.now = min(self.due, inf if timeout is None else self.now + timeout / 1000)
        return [(3, select.POLLIN)] if self.now >= self.due else []


@pytest.fixture
def script() -> Scripted:
    return Scripted()


def arrivals(script: Scripted, look: float = LOOK) -> Arrivals:
    return Arrivals(cast("select.poll", script), script.clock, look)


def waited(script: Scripted, waits: Arrivals, seconds: float, until: float = inf) -> tuple[bool, bool]:
    """Wait for a reply that comes after so long; whether it looked, and whether it slept."""
    script.after(seconds)
    waits.wait(until)
    return script.looks > 0, bool(script.sleeps)


def test_it_sleeps_the_first_time_and_looks_where_that_was_soon(script: Scripted) -> None:
    waits = arrivals(script)
    assert waited(script, waits, 0.0005) == (False, True)
    assert waited(script, waits, 0.0005) == (True, False)
    assert waited(script, waits, 0.0005) == (True, False)


def test_it_sleeps_while_replies_take_long_and_looks_again_when_they_come_soon(script: Scripted) -> None:
    waits = arrivals(script)
    for seconds in (0.2, 0.0011, 0.0005):
        assert waited(script, waits, seconds) == (False, True)
    assert waited(script, waits, 0.0005) == (True, False)


def test_after_a_look_in_vain_it_sleeps_for_a_while(script: Scripted) -> None:
    waits = arrivals(script)
    waited(script, waits, 0.0005)
    assert waited(script, waits, 0.2) == (True, True)
    assert script.looks == pytest.approx(LOOK / EACH, abs=1)
    soon = [waited(script, waits, 0.0005) for _ in range(16)]
    assert soon == [(False, True)] * 15 + [(True, False)]


def test_where_the_peer_needs_the_same_cpu_it_looks_less_and_less_often(script: Scripted) -> None:
    script.same_cpu = True
    waits, slept, found = arrivals(script), 0, []
    while len(found) < 9:
        if waited(script, waits, 0.0005) == (False, True):
            slept += 1
        else:
            found.append(slept)
            slept = 0
    assert found == [1, 15, 31, 63, 127, 255, 511, 1023, 1023]
    script.same_cpu = False
    while waited(script, waits, 0.0005) != (True, False):
        pass
    assert waited(script, waits, 0.2) == (True, True)
    assert [waited(script, waits, 0.0005) for _ in range(16)][-2:] == [(False, True), (True, False)]


def test_it_looks_no_longer_than_it_may_wait(script: Scripted) -> None:
    waits = arrivals(script)
    waited(script, waits, 0.0005)
    until = script.now + 0.0003
    script.after(1)
    with pytest.raises(Late):
        waits.wait(until)
    assert script.now == pytest.approx(until, abs=EACH)
    assert not script.sleeps


def test_what_is_here_already_comes_too_late_after_the_bound(script: Scripted) -> None:
    waits = arrivals(script)
    for _ in range(2):  # asleep and looking
        script.after(0)
        with pytest.raises(Late):
            waits.wait(script.now)
        waited(script, waits, 0.0005)


def test_a_bound_is_kept_asleep(script: Scripted) -> None:
    waits = arrivals(script)
    script.after(1)
    with pytest.raises(Late):
        waits.wait(script.now + 0.25)
    assert script.sleeps == [250]
    with pytest.raises(Late):
        waits.wait(script.now)
    assert script.sleeps == [250]


def test_it_ends_looking_where_the_clock_stands_still(script: Scripted) -> None:
    waits = Arrivals(cast("select.poll", script), lambda: 0.0, LOOK)
    waited(script, waits, 0.0005)
    assert waited(script, waits, 5.0) == (True, True)


def test_it_never_looks_where_it_is_not_to(script: Scripted) -> None:
    waits = arrivals(script, look=0.0)
    for _ in range(3):
        assert waited(script, waits, 0.0005) == (False, True)


class While:
    """A poller that has something done while somebody waits, as another thread would."""

    def __init__(self, done: Callable[[], None]) -> None:
        self.done = done

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        self.done()
        return [(3, select.POLLIN)]


def meanwhile(done: Callable[[], None]) -> None:
    """Have it done while somebody else waits."""
    Arrivals(cast("select.poll", While(done)), lambda: 0.0, 0.0).wait(inf)


def test_it_looks_only_while_nobody_else_waits(script: Scripted) -> None:
    waits = arrivals(script)
    found: list[tuple[bool, bool]] = []
    waited(script, waits, 0.0005)
    meanwhile(lambda: found.append(waited(script, waits, 0.0005)))
    assert found == [(True, True)]
    assert script.looks == 1
    assert waited(script, waits, 0.0005) == (True, False)


def test_a_forked_child_has_none_of_those_who_wait_in_its_parent(script: Scripted) -> None:
    waits = arrivals(script)
    codes: list[int] = []
    waited(script, waits, 0.0005)

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if waited(script, waits, 0.0005) == (True, False) else 1
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    meanwhile(fork)
    assert codes == [0]

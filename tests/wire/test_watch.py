"""Many deadlines under one timer: each rings in its time, and the loop is asked for few timers."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from meshsdk.wire.aio.watch import Watch


class Loop:
    """Time that goes on when told; timers ring up to `early` seconds too soon, as uvloop's do."""

    def __init__(self, early: float = 0.0) -> None:
        self.now = 0.0
        self.early = early
        self.made = 0
        self.timers: list[Timer] = []

    def clock(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        assert 0 <= delay < inf
        self.made += 1
        timer = Timer(self, self.now + max(delay - self.early, 0.0), callback)
        self.timers.append(timer)
        assert len(self.timers) == 1, "two timers at once"
        return timer

    def until(self, end: float) -> None:
        while self.timers and self.timers[0].when <= end:
            timer = self.timers.pop()
            self.now = max(self.now, timer.when)
            timer.callback()
        self.now = end


class Timer:
    def __init__(self, loop: Loop, when: float, callback: Callable[[], None]) -> None:
        self.loop, self.when, self.callback = loop, when, callback

    def cancel(self) -> None:
        self.loop.timers.remove(self)


class Wait:
    def __init__(self, due: float, then: Callable[[], None] = lambda: None) -> None:
        self.when = due
        self.then = then
        self.rung: list[float] = []

    def due(self) -> float:
        return self.when

    def overdue(self, now: float) -> None:
        self.rung.append(now)
        self.then()


def watching(early: float = 0.0) -> tuple[Loop, Any]:
    loop = Loop(early)
    return loop, Watch(loop, loop.clock)  # type: ignore[arg-type]


def test_each_rings_once_and_in_time() -> None:
    chance = random.Random(3)
    for early in (0.0, 0.0009):
        loop, watch = watching(early)
        waits = [Wait(chance.uniform(0.1, 10)) for _ in range(300)]
        chance.shuffle(waits)
        for wait in waits:
            watch.add(wait, wait.when)
        loop.until(11)
        for wait in waits:
            assert len(wait.rung) == 1
            assert wait.when <= wait.rung[0] <= wait.when + 0.0011


def test_one_that_is_done_does_not_ring() -> None:
    loop, watch = watching()
    kept, done = Wait(1.0), Wait(0.5)
    watch.add(kept, 1.0)
    watch.add(done, 0.5)
    watch.discard(done)
    watch.discard(done)
    loop.until(2)
    assert (kept.rung, done.rung) == ([1.0], [])
    assert not loop.timers, "nothing is left to wait for"


def test_calls_with_one_timeout_share_a_timer() -> None:
    """A thousand calls a second with five seconds each: a timer about every five seconds."""
    loop, watch = watching()
    for call in range(20_000):
        loop.until(call / 1000)
        wait = Wait(loop.now + 5)
        watch.add(wait, wait.when)
        watch.discard(wait)
    assert loop.made < 10


def test_what_is_due_may_move() -> None:
    loop, watch = watching()
    later, sooner, never = Wait(1.0), Wait(inf), Wait(inf)
    for wait in (later, sooner, never):
        watch.add(wait, wait.when)
    later.when = 3.0
    loop.until(2.0)
    assert later.rung == []
    sooner.when = 2.5
    watch.sooner(2.5)
    loop.until(5.0)
    assert (sooner.rung, later.rung, never.rung) == ([2.5], [3.0], [])


def test_what_rings_may_ask_again_and_end_others() -> None:
    loop, watch = watching()
    other = Wait(1.0)
    again = Wait(1.0)

    def more() -> None:
        watch.discard(other)
        other.when = inf
        if len(again.rung) < 3:
            again.when += 1.0
            watch.add(again, again.when)

    again.then = more
    watch.add(again, 1.0)
    loop.until(10)
    assert again.rung == [1.0, 2.0, 3.0]
    assert other.rung == []


def test_one_that_is_late_already_rings_at_once() -> None:
    loop, watch = watching()
    loop.now = 7.0
    wait = Wait(6.0)
    watch.add(wait, 6.0)
    loop.until(7.0)
    assert wait.rung == [7.0]


def test_one_that_breaks_off_stops_no_other() -> None:
    loop, watch = watching()
    waits = [Wait(1.0) for _ in range(20)]

    def broken() -> None:
        raise OSError("a mistake")

    for wait in waits[::2]:
        wait.then = broken
    for wait in waits:
        watch.add(wait, wait.when)
    later = Wait(5.0)
    watch.add(later, later.when)
    for _ in range(10):
        with pytest.raises(OSError, match="a mistake"):  # for the loop to tell of
            loop.until(2.0)
    loop.until(6.0)
    assert all(len(wait.rung) == 1 for wait in [*waits, later])
    assert max(wait.rung[0] for wait in waits) < 1.02


def test_closing_forgets_all() -> None:
    loop, watch = watching()
    wait = Wait(1.0)
    watch.add(wait, 1.0)
    watch.close()
    loop.until(2)
    assert wait.rung == []
    assert not loop.timers

"""Deadlines of many waits under one timer.

A timer per request costs its making and its cancelling, and nearly all are cancelled. Here a wait only says when it is
due; the one timer is set to the soonest, and when it rings, everything under way is looked at and it is set anew. As
deadlines are seconds ahead and calls take milliseconds, it rings about once per timeout, not once per call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final, Protocol

__all__ = ["Timed", "Watch"]

# uvloop's timers count whole milliseconds.
_GRAIN: Final = 0.001


class Timed(Protocol):
    """Something that must not take for ever."""

    def due(self) -> float:
        """When its time is over, on the watch's clock; inf is never. May move with what happens."""
        ...

    def overdue(self, now: float) -> None:
        """Its time is over; it is watched no longer unless it asks again."""
        ...


class Watch:
    """The waits of one loop."""

    __slots__ = ("_alarm", "_armed", "_clock", "_loop", "_waits")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._waits: set[Timed] = set()
        self._armed = inf
        self._alarm: asyncio.TimerHandle | None = None

    def add(self, wait: Timed, due: float) -> None:
        """Watch `wait`, which is due at `due` for now."""
        self._waits.add(wait)
        if due < self._armed:
            self._arm(due)

    def discard(self, wait: Timed) -> None:
        """Watch it no longer."""
        self._waits.discard(wait)

    def sooner(self, due: float) -> None:
        """One of the waits is due at `due`, which may be sooner than before."""
        if due < self._armed:
            self._arm(due)

    def close(self) -> None:
        """Forget all."""
        self._waits.clear()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _arm(self, due: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._armed = due
        self._alarm = self._loop.call_later(max(due - self._clock(), 0.0), self._ring)

    def _ring(self) -> None:
        self._armed = inf
        self._alarm = None
        now = self._clock()
        again = now  # where one of them breaks off, the others are looked at anew
        try:
            soonest = inf
            for wait in tuple(self._waits):
                due = wait.due()
                if due <= now:
                    self._waits.discard(wait)
                    wait.overdue(now)
                elif due < soonest:
                    soonest = due
            again = soonest
        finally:
            if again < self._armed:
                self._arm(max(again, now + _GRAIN))

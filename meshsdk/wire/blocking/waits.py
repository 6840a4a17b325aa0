"""The waits of a thread for a socket."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from math import ceil, inf
from typing import Final

__all__ = ["Arrivals", "Late", "ready"]

# After it looked in vain, a thread sleeps so many times, and after each further time twice as many: looking costs a
# sixteenth of what it may take, and nothing where it is always in vain, as where the peer needs the same CPU.
_SLEEPS: Final = 16
_MOST_SLEEPS: Final = 1024

# A look takes 0.5 us or more: where the clock stands still, looking ends all the same.
_LOOKS: Final = 1024

# Those that wait now, in any thread; adding and discarding are atomic.
_waiting: Final[set[Arrivals]] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_waiting.clear)  # the parent's threads


class Late(Exception):
    """The bound of one wait is over."""


class Arrivals:
    """Waits for what comes in on one socket: for a moment by looking again and again, then asleep.

    A thread that slept finds its caches cold, and all it does next takes twice the time: where a reply is here within
    what that costs, it is cheaper to look for it than to sleep (docs/decisions/0025).

    Rule 1  It looks where the last wait was over in time, asleep or not. The first one sleeps.
    Rule 2  Where it looked in vain, it sleeps for the rest of this wait and in the next ones.
    Rule 3  It looks alone: where other threads of the process wait for replies too, each look keeps them from working.

    Args:
        poller: a `select.poll`.
        clock: seconds, monotonic.
        look: how long it looks, seconds; 0 where it is to sleep at once.
    """

    __slots__ = ("_clock", "_look", "_pause", "_poller", "_sleeps")

    def __init__(self, poller: select.poll, clock: Callable[[], float], look: float) -> None:
        self._poller = poller
        self._clock = clock
        self._look = look
        self._sleeps = 1
        self._pause = _SLEEPS

    def watch(self, sock: socket.socket) -> None:
        """From here on wait for what comes in on `sock`."""
        self._poller.register(sock.fileno(), select.POLLIN)

    def none(self) -> bool:
        """Whether nothing is here."""
        return not self._poller.poll(0)

    def wait(self, until: float) -> None:
        """Wait for something to read, or the peer's end; raises `Late` where `until` is over before or meanwhile."""
        began = self._clock()
        if began >= until:  # whatever is here already
            raise Late
        _waiting.add(self)
        try:
            if not self._sleeps and self._look_for(min(began + self._look, until)):
                return
            self._sleep(until)
        finally:
            _waiting.discard(self)
        if self._sleeps > 1:
            self._sleeps -= 1
        else:
            self._sleeps = 0 if self._clock() - began <= self._look else 1

    def _look_for(self, until: float) -> bool:
        """Look until then; whether something came."""
        poll, clock = self._poller.poll, self._clock
        for _ in range(_LOOKS):
            if poll(0):
                self._pause = _SLEEPS
                return True
            if len(_waiting) > 1:
                return False
            if clock() >= until:
                break
        self._sleeps = self._pause
        self._pause = min(2 * self._pause, _MOST_SLEEPS)
        return False

    def _sleep(self, until: float) -> None:
        left = until - self._clock()
        if left <= 0 or not self._poller.poll(None if left == inf else ceil(left * 1000)):
            raise Late


def ready(sock: socket.socket, events: int, seconds: float) -> int:
    """Wait for one of `events`, as `select.poll` has them, and say what happened; raises `Late`."""
    poller = select.poll()
    poller.register(sock.fileno(), events)
    for _, happened in poller.poll(None if seconds == inf else ceil(seconds * 1000)) if seconds > 0 else ():
        return happened
    raise Late

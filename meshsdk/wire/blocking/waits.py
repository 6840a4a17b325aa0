"""The waits of a thread for a socket."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from math import ceil, inf
from typing import Final

from meshsdk.wire.looking import LOOKS, Looking

__all__ = ["Arrivals", "Late", "ready"]

# Those that wait now, in any thread; adding and discarding are atomic.
_waiting: Final[set[Arrivals]] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_waiting.clear)  # the parent's threads


class Late(Exception):
    """The bound of one wait is over."""


class Arrivals:
    """Waits for what comes in on one socket: for a moment by looking again and again, where that is worth it.

    Args:
        poller: a `select.poll`.
        clock: seconds, monotonic.
        look: how long it looks at most, seconds.
    """

    __slots__ = ("_clock", "_looking", "_poller")

    def __init__(self, poller: select.poll, clock: Callable[[], float], look: float) -> None:
        self._poller = poller
        self._clock = clock
        self._looking = Looking(look)

    def watch(self, sock: socket.socket) -> None:
        """From here on wait for what comes in on `sock`."""
        self._poller.register(sock.fileno(), select.POLLIN)

    def none(self) -> bool:
        """Whether nothing is here."""
        return not self._poller.poll(0)

    def wait(self, until: float) -> None:
        """Wait for something to read, or the peer's end; raises `Late` where `until` is over before or meanwhile."""
        looking, began = self._looking, self._clock()
        if began >= until:  # whatever is here already
            raise Late
        try:
            _waiting.add(self)
            if not looking.sleeps and self._look(min(began + looking.longest, until)):
                looking.found()
                return
            self._sleep(until)
        finally:
            _waiting.discard(self)
        looking.slept(self._clock() - began)

    def _look(self, until: float) -> bool:
        """Look until then; whether something came."""
        poll, clock = self._poller.poll, self._clock
        for _ in range(LOOKS):
            if poll(0):
                return True
            if len(_waiting) > 1:
                return False
            if clock() >= until:
                break
        self._looking.missed()
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

"""A loop that stays awake while it waits for a reply that will soon be here.

A loop with a callback to run asks the kernel what is new and does not sleep over it. So while `Looking` says that it is
worth it, a wait has something called in each turn; whatever else comes meanwhile is served as ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from meshsdk.wire.looking import LOOKS

if TYPE_CHECKING:
    from meshsdk.wire.looking import Looking

__all__ = ["Awake", "Wait"]


class Awake:
    """Keeps one loop awake.

    Args:
        loop: the loop.
        clock: seconds, monotonic.
    """

    __slots__ = ("clock", "loop", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self.loop = loop
        self.clock = clock
        self.waiting = 0  # for replies, in all

    def wait(self, looking: Looking) -> Wait:
        """A wait for a reply begins; it ends by `Wait.end`, whatever comes of it."""
        self.waiting += 1
        wait = Wait(self, looking)
        if not looking.sleeps and self.waiting == 1:
            wait.turn()
        return wait


class Wait:
    """One wait."""

    __slots__ = ("_awake", "_began", "_looking", "_over", "_turns")

    def __init__(self, awake: Awake, looking: Looking) -> None:
        self._awake = awake
        self._looking = looking
        self._began = awake.clock()
        self._turns = 0  # negative where nobody looks any longer
        self._over = False

    def turn(self) -> None:
        """Look, in this turn of the loop, whether to be called in the next one."""
        awake = self._awake
        if self._over:
            return
        if awake.waiting > 1:
            self._turns = -1
            return
        if self._turns == LOOKS or awake.clock() - self._began >= self._looking.longest:
            self._turns = -1
            self._looking.missed()
            return
        self._turns += 1
        awake.loop.call_soon(self.turn)

    def end(self) -> None:
        """The reply is here, or nothing will come."""
        self._over = True
        self._awake.waiting -= 1
        if self._turns > 0:
            self._looking.found()
        else:
            self._looking.slept(self._awake.clock() - self._began)

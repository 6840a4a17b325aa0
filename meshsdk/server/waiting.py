"""Waiting, on the background loop, for what other threads and signal handlers set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Flag", "either"]


class Flag:
    """Set once, from any thread or within a signal handler: it takes no lock and waits for nobody."""

    __slots__ = ("_waiters", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._waiters: set[Callable[[], None]] = set()

    def set(self) -> None:
        """Set it; waiters wake up on their own loop."""
        self.is_set = True
        for wake in list(self._waiters):
            wake()

    def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` when the flag is set, or now where it is. Added first and checked then: no set is missed."""
        self._waiters.add(wake)
        if self.is_set:
            wake()

    def forget(self, wake: Callable[[], None]) -> None:
        """Call it no more."""
        self._waiters.discard(wake)


async def either(seconds: float | None, *flags: Flag) -> None:
    """Wait until one of the flags is set, at most `seconds`."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(woken.set)

    for flag in flags:
        flag.listen(wake)
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        return
    finally:
        for flag in flags:
            flag.forget(wake)

"""One set of lanes per asyncio loop, closed when that loop shuts down.

A connection of asyncio belongs to the loop that opened it; used from another it hangs or fails. Programs that make a
loop per call (`asyncio.run` in a handler, test suites) are common.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

__all__ = ["PerLoop"]

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Finds what belongs to the running loop."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._loops: dict[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[None]]] = {}

    def current(self) -> T | None:
        """What belongs to the running loop, None before `enter`."""
        found = self._loops.get(asyncio.get_running_loop())
        return found[0] if found is not None else None

    async def enter(self) -> T:
        """Make it for the running loop."""
        loop = asyncio.get_running_loop()
        for other in [other for other in tuple(self._loops) if other.is_closed()]:
            self._loops.pop(other, None)
        made = self._make()
        watch = self._until_shutdown(loop, made)
        self._loops[loop] = (made, watch)
        await anext(watch)
        return made

    async def leave(self) -> None:
        """Close what belongs to the running loop."""
        found = self._loops.get(asyncio.get_running_loop())
        if found is not None:
            await found[1].aclose()

    async def _until_shutdown(self, loop: asyncio.AbstractEventLoop, made: T) -> AsyncGenerator[None]:
        """Suspended for the life of the loop: `loop.shutdown_asyncgens`, which asyncio.run calls, ends it."""
        try:
            yield
        finally:
            self._loops.pop(loop, None)
            await self._close(made)

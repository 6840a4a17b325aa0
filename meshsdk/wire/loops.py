"""One set of pools per asyncio loop, closed when that loop shuts down.

A connection of asyncio belongs to the loop that opened it; used from another it hangs or fails. Programs that make a
loop per call (`asyncio.run` in a handler, test suites) are common.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

from meshsdk.core.model import Endpoint
from meshsdk.wire.pools import Pools

__all__ = ["LoopPools"]

P = TypeVar("P")


class LoopPools(Generic[P]):
    """Finds the running loop's pools."""

    def __init__(self, make: Callable[[Endpoint, int], P], close: Callable[[Pools[P]], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._loops: dict[asyncio.AbstractEventLoop, tuple[Pools[P], AsyncGenerator[None]]] = {}

    def current(self) -> Pools[P] | None:
        """The running loop's pools, None before `enter`."""
        found = self._loops.get(asyncio.get_running_loop())
        return found[0] if found is not None else None

    async def enter(self) -> Pools[P]:
        """Make pools for the running loop."""
        loop = asyncio.get_running_loop()
        for other in [other for other in tuple(self._loops) if other.is_closed()]:
            self._loops.pop(other, None)
        pools: Pools[P] = Pools(self._make)
        watch = self._until_shutdown(loop, pools)
        self._loops[loop] = (pools, watch)
        await anext(watch)
        return pools

    async def leave(self) -> None:
        """Close the running loop's pools."""
        found = self._loops.get(asyncio.get_running_loop())
        if found is not None:
            await found[1].aclose()

    async def _until_shutdown(self, loop: asyncio.AbstractEventLoop, pools: Pools[P]) -> AsyncGenerator[None]:
        """Suspended for the life of the loop: `loop.shutdown_asyncgens`, which asyncio.run calls, ends it."""
        try:
            yield
        finally:
            self._loops.pop(loop, None)
            await self._close(pools)

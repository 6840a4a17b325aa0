"""What httpcore keeps for each loop of asyncio and each run of trio, closed when that ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

from meshsdk.runs import Run, running

__all__ = ["PerRun"]

T = TypeVar("T")


class PerRun(Generic[T]):
    """What `PerLoop` is for asyncio alone: finds what belongs to the running loop or run, closed when that ends."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._loops: dict[Run, tuple[T, AsyncGenerator[None]]] = {}

    def current(self) -> T | None:
        """What belongs to it, None before `enter`."""
        found = self._loops.get(running())
        return found[0] if found is not None else None

    async def enter(self) -> T:
        """Make it."""
        run = running()
        for other in [other for other in tuple(self._loops) if other.is_closed()]:
            self._loops.pop(other, None)
        made = self._make()
        watch = self._until_the_end(run, made)
        self._loops[run] = (made, watch)
        await anext(watch)
        return made

    async def leave(self) -> None:
        """Close it."""
        found = self._loops.get(running())
        if found is not None:
            await found[1].aclose()

    async def _until_the_end(self, run: Run, made: T) -> AsyncGenerator[None]:
        """Suspended for the life of the run: asyncio.run and trio.run end such generators last."""
        try:
            yield
        finally:
            self._loops.pop(run, None)
            await self._close(made)

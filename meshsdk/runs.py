"""Where coroutines run: in a loop of asyncio, or in a run of trio, which goes by asyncio's names here.

trio is never imported: where it runs, it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

__all__ = ["Event", "Run", "TrioRun", "await_event", "new_event", "pause", "running"]

_log = logging.getLogger("meshsdk.wire")


class Event(Protocol):
    """What asyncio's and trio's events have in common."""

    def set(self) -> Any:
        """Let all go on who wait for it."""
        ...

    async def wait(self) -> Any:
        """Until it is set."""
        ...


class TrioRun:
    """One `trio.run`; two are equal where they are the same run.

    Args:
        trio: the module.

    Raises:
        RuntimeError: it is not running here.
    """

    __slots__ = ("_token", "_trio")

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrioRun) and other._token is self._token

    def __hash__(self) -> int:
        return hash(self._token)

    def is_closed(self) -> bool:
        """Whether it has ended; from any thread."""
        try:
            self._token.run_sync_soon(_nothing, idempotent=True)  # there is no other public way to know
        except RuntimeError:
            return True
        return False

    def call_soon_threadsafe(self, do: Callable[[], object]) -> None:
        """Call `do` in the run, from any thread; raises RuntimeError where it has ended."""
        self._token.run_sync_soon(do)

    async def sleep(self, seconds: float) -> None:
        """As `trio.sleep`."""
        await self._trio.sleep(seconds)

    def event(self) -> Event:
        """A `trio.Event`."""
        made: Event = self._trio.Event()
        return made

    async def await_event(self, event: Event, seconds: float) -> None:
        """Wait for it, at most so long."""
        with self._trio.move_on_after(seconds):
            await event.wait()

    def create_task(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` beside everything else, from inside the run; trio keeps the task."""
        self._trio.lowlevel.spawn_system_task(_carefully, work)


Run = asyncio.AbstractEventLoop | TrioRun


def running() -> Run:
    """The loop or the run this is called in; raises RuntimeError where there is neither."""
    trio = sys.modules.get("trio")
    if hasattr(trio, "lowlevel"):  # else it is not imported, or another thread is about to
        try:
            return TrioRun(trio)  # asked first: as a guest, trio runs inside a loop of asyncio
        except RuntimeError:
            pass
    return asyncio.get_running_loop()


def new_event() -> Event:
    """One for either."""
    run = running()
    return run.event() if isinstance(run, TrioRun) else asyncio.Event()


async def await_event(event: Event, seconds: float) -> None:
    """Wait for one of `new_event`, at most so long, where it was made."""
    run = running()
    if isinstance(run, TrioRun):
        return await run.await_event(event, seconds)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return None


async def pause(seconds: float) -> None:
    """Sleep, in either."""
    run = running()
    if isinstance(run, TrioRun):
        await run.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


def _nothing() -> None:
    pass


async def _carefully(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - trio would end the whole run
        _log.warning("closing a reply that was forgotten: %r", error)

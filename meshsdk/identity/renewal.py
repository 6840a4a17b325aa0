"""What goes on beside the calls for an identity: the provider runs, ages are told, the first material is waited for.

Rule 1  All of it runs on the process's background loop, from the first `start` on.
Rule 2  A forked child begins anew, on its own first `start`: the parent's loop and tasks are not in it.
Rule 3  A provider that ends or breaks is a mistake of ours; it is told and run again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any, Protocol

from meshsdk.identity.providers.provider import Provider, Publish

__all__ = ["Loop", "Renewal"]

_log = logging.getLogger("meshsdk.identity")

RESTART_PAUSE = 1.0
"""Seconds before a provider that broke is run again."""

CLOSE_TIMEOUT = 2.0
"""Seconds `close` waits for the provider to stop; it needs milliseconds."""


class Loop(Protocol):
    """Where providers run: `meshsdk.discovery.background.Background` is one."""

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on it, and so must not wait for it."""
        ...

    def submit(self, function: Callable[[], Coroutine[Any, Any, None]], /) -> Future[None]:
        """Run a coroutine as a task; from any thread."""
        ...


class Renewal:
    """Runs one provider.

    Args:
        provider: what to run.
        loop: where.
        publish: what to hand to the provider.
        tick: tells the ages that were reached; returns seconds until the next look.
        forked: called in a forked child.
    """

    def __init__(
        self,
        provider: Provider,
        loop: Loop,
        publish: Publish,
        tick: Callable[[], float],
        *,
        forked: Callable[[], None],
    ) -> None:
        self._provider = provider
        self._loop = loop
        self._publish = publish
        self._tick = tick
        self._tell_forked = forked
        self._closed = False
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()  # in a forked child: another thread of the parent may have held it
        self._life: Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken: asyncio.Event | None = None
        self._ready: Future[None] = Future()  # material came
        self._heard: Future[None] = Future()  # or trouble

    def forked(self) -> None:
        """Rule 2."""
        self._begin()
        self._tell_forked()

    def start(self) -> None:
        """Run, unless it runs or was closed."""
        if self._life is not None or self._closed:
            return
        with self._lock:
            if self._life is None and not self._closed:
                self._life = self._loop.submit(self._live)

    def came(self) -> None:
        """Material came: let those who wait for the first one go on, and reckon its ages."""
        self.answered()
        if not self._ready.done():
            self._ready.set_result(None)
        self.wake()

    def answered(self) -> None:
        """The provider has said something, material or trouble."""
        if not self._heard.done():
            self._heard.set_result(None)

    def wake(self) -> None:
        """Look at the clock now; on the loop."""
        if self._woken is not None:
            self._woken.set()

    def wait(self, timeout: float, *, answer: bool = False) -> None:
        """Wait at most `timeout` seconds for the first material, or for the first `answer` of either kind."""
        if not self._loop.is_current:
            wait((self._heard if answer else self._ready,), timeout)

    async def await_ready(self, seconds: float, *, answer: bool = False) -> None:
        """The same from any event loop."""
        loop = asyncio.get_running_loop()
        opened = asyncio.Event()

        def tell(_ready: Future[None]) -> None:
            with contextlib.suppress(RuntimeError):  # a loop that is closed has nobody left who waits
                loop.call_soon_threadsafe(opened.set)

        (self._heard if answer else self._ready).add_done_callback(tell)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await opened.wait()

    def close(self) -> None:
        """Stop; waits until it has, for a bounded time."""
        if (ending := self._end()) and not self._loop.is_current:
            ending.result(CLOSE_TIMEOUT)

    async def aclose(self) -> None:
        """The same from asyncio."""
        if ending := self._end():
            await asyncio.wait_for(asyncio.wrap_future(ending), CLOSE_TIMEOUT)

    def _end(self) -> Future[None] | None:
        with self._lock:
            self._closed = True
            if self._life is None:
                return None
        return self._loop.submit(self._stop)

    # --- on the background loop -------------------------------------------------------------------------

    async def _live(self) -> None:
        self._task, self._woken = asyncio.current_task(), asyncio.Event()
        await asyncio.gather(self._provide(), self._age(self._woken))

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _provide(self) -> None:
        while True:
            try:
                await self._provider.run(self._publish)
                _log.error("a provider of identities ended by itself; it is run again in %g s", RESTART_PAUSE)
            except Exception:  # noqa: BLE001  # logged with its stack; what is in force stays
                _log.exception("a provider of identities broke off; it is run again in %g s", RESTART_PAUSE)
            await asyncio.sleep(RESTART_PAUSE)

    async def _age(self, woken: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._tick()):
                    await woken.wait()
            woken.clear()


_all: weakref.WeakSet[Renewal] = weakref.WeakSet()


def _after_fork() -> None:
    for renewal in list(_all):
        renewal.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

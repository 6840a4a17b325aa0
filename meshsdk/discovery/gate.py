"""A door that opens once, for threads and for tasks of any event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading

__all__ = ["Gate"]


class Gate:
    """Waits for something the background loop does, without holding up the waiter's own loop."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._futures: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}

    @property
    def is_open(self) -> bool:
        """Whether waiting is over for everybody."""
        return self._event.is_set()

    def open(self) -> None:
        """Let everybody through, now and later; from any thread."""
        with self._lock:
            self._event.set()
            waiting, self._futures = self._futures, {}
        for future, loop in waiting.items():
            with contextlib.suppress(RuntimeError):  # a loop that is closed has nobody left who waits
                loop.call_soon_threadsafe(_let_through, future)

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds, blocking the thread; say whether the door is open."""
        return self._event.wait(timeout)

    async def await_open(self, seconds: float) -> bool:
        """Wait at most `seconds` in the running loop; say whether the door is open."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self._event.is_set():
                return True
            self._futures[future] = loop
        try:
            await asyncio.wait((future,), timeout=seconds)
        finally:
            with self._lock:
                self._futures.pop(future, None)
        return self._event.is_set()


def _let_through(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

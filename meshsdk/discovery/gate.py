"""A door that opens once, for threads and for tasks of any event loop, asyncio's or trio's."""

from __future__ import annotations

import contextlib
import threading

from meshsdk.runs import Event, Run, await_event, new_event, running

__all__ = ["Gate"]


class Gate:
    """Waits for something the background loop does, without holding up the waiter's own loop."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._waiting: dict[Event, Run] = {}

    @property
    def is_open(self) -> bool:
        """Whether waiting is over for everybody."""
        return self._event.is_set()

    def open(self) -> None:
        """Let everybody through, now and later; from any thread."""
        with self._lock:
            self._event.set()
            waiting, self._waiting = self._waiting, {}
        for opened, run in waiting.items():
            with contextlib.suppress(RuntimeError):  # a loop that is closed has nobody left who waits
                run.call_soon_threadsafe(opened.set)

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds, blocking the thread; say whether the door is open."""
        return self._event.wait(timeout)

    async def await_open(self, seconds: float) -> bool:
        """Wait at most `seconds` in the running loop; say whether the door is open."""
        run, opened = running(), new_event()
        with self._lock:
            if self._event.is_set():
                return True
            self._waiting[opened] = run
        try:
            await await_event(opened, seconds)
        finally:
            with self._lock:
                self._waiting.pop(opened, None)
        return self._event.is_set()

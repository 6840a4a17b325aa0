"""SIGTERM and SIGINT, told to us before the server: it closes its door at once, we want callers to know first.

Our handler stands before the one the server has set. The first signal is kept, and given on when callers have been
told; a second one, of whatever kind, goes through at once. Handlers set through an event loop
(`loop.add_signal_handler`) cannot be held back: there the server begins to stop at the same moment as we do.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["Signals"]

log = logging.getLogger("meshsdk.server")

HANDLED = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Our handlers in this process.

    Args:
        first: asked at each signal whether it is to be kept for now; runs within the signal handler, so it may neither
            wait nor take a lock.
    """

    def __init__(self, first: Callable[[int], bool]) -> None:
        self._first = first
        self._pid = os.getpid()

    def install(self) -> None:
        """Stand before the handlers that are set at this moment; doing so twice changes nothing."""
        self._pid = os.getpid()
        if threading.current_thread() is threading.main_thread():
            self._install()
        elif not _on_main_thread(self._install):
            log.info("not in the main thread: SIGTERM reaches the server at once, callers learn of it afterwards")

    def release(self, number: int) -> None:
        """Give a kept signal on to the server: raise it again, in the main thread, where system calls must wake up."""
        ident = threading.main_thread().ident
        if ident is None:
            os.kill(os.getpid(), number)
        else:
            signal.pthread_kill(ident, number)

    def abrupt(self, number: int) -> bool:
        """Whether the handler behind ours ends the process without finishing what is in flight."""
        handler = signal.getsignal(number)
        return isinstance(handler, _Handler) and handler.behind in {signal.SIG_DFL, signal.default_int_handler}

    def keep(self, number: int) -> bool:
        """Whether a signal is to be kept for now; never in a forked child, which inherits the handlers only."""
        return os.getpid() == self._pid and self._first(number)

    def _install(self) -> None:
        for number in HANDLED:
            found = signal.getsignal(number)
            if isinstance(found, _Handler):
                found.signals = self
            elif found is None or found is signal.SIG_IGN:
                log.debug("%s is ignored or handled outside Python, and left alone", signal.Signals(number).name)
            else:
                signal.signal(number, _Handler(self, found))


class _Handler:
    """A handler of ours and the one behind it."""

    __slots__ = ("behind", "signals")

    def __init__(self, signals: Signals, behind: Any) -> None:
        self.signals = signals
        self.behind = behind

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signals.keep(number) or _belongs_to_loop(self.behind):
            return
        if callable(self.behind):
            self.behind(number, frame)
        else:
            signal.signal(number, self.behind)
            signal.raise_signal(number)


def _belongs_to_loop(handler: Any) -> bool:
    """An event loop's handler does nothing itself: the loop is told through its wake-up descriptor, before us."""
    owner = getattr(handler, "__self__", None)
    return f"{getattr(handler, '__module__', '')}.{type(owner).__module__}".find("uvloop") >= 0 or (
        getattr(handler, "__name__", "") == "_sighandler_noop"
    )


_PENDING = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_kept: list[Any] = []  # what CPython will call must stay alive until it has


def _on_main_thread(call: Callable[[], None]) -> bool:
    """Let the main thread run `call` between two of its instructions (CPython's Py_AddPendingCall).

    gunicorn's threaded worker with `preload_app` sets its handlers after the application was loaded, and runs the
    application outside the main thread: there is no other moment to set ours.
    """
    add = getattr(getattr(ctypes, "pythonapi", None), "Py_AddPendingCall", None)
    if add is None:
        return False

    def pending(_: Any) -> int:
        call()
        return 0

    _kept.append(_PENDING(pending))
    return bool(add(_kept[-1], None) == 0)

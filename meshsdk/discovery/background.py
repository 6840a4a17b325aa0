"""One daemon thread with one event loop per process, for everything that goes on beside the calls.

Rule 1: the thread starts with its first work, in an empty context: no request's deadline or trace sticks to it.
Rule 2: a forked child has no thread; its first work starts one of its own. The parent's is not disturbed: the child
        shares the parent's epoll object, so it lets go of it before anything could remove the parent's sockets from it.
Rule 3: at the interpreter's end all work is cancelled and awaited, so that nothing complains about being dropped.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import logging
import os
import selectors
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context
from typing import Any, ParamSpec, TypeVar

__all__ = ["Background"]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("meshsdk.discovery")

STOP_TIMEOUT = 2.0
"""Seconds the interpreter's end waits for the work to be cancelled; a hanging one must not keep the process."""


class _Runner:
    """One life of the thread. Its frame holds it, so in a forked child, which never unwinds that frame, it is kept."""

    def __init__(self, name: str) -> None:
        self.selector = selectors.DefaultSelector()
        self.loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop(self.selector)
        self.kept: set[asyncio.Task[Any]] = set()
        self._ended = asyncio.Event()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        Context().run(self.thread.start)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        await self._ended.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for _ in range(100):  # one turn is enough but for tasks that begin others
            if not any(map(_unbegun, others)):
                break
            await asyncio.sleep(0)
            others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def stop(self, timeout: float) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended already
            self.loop.call_soon_threadsafe(self._ended.set)
        if threading.current_thread() is not self.thread:
            self.thread.join(timeout)

    def let_go(self) -> None:
        """In a forked child: end none of the parent's tasks, and touch nothing of its epoll object."""
        self.kept = asyncio.all_tasks(self.loop)
        for task in self.kept:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001  # not pending here
        fileno = getattr(self.selector, "fileno", None)
        if fileno is not None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, fileno(), inheritable=False)  # the number stays taken, whatever uses it gets EPERM
            os.close(nowhere)


def _unbegun(task: asyncio.Task[Any] | None) -> bool:
    """A task cancelled before its first step drops what it was to await (anyio's wrap a coroutine), which is noisy."""
    coroutine = task.get_coro() if task is not None else None
    return inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED


class Background:
    """The thread and its loop, started when they are first needed, in each process anew.

    Args:
        name: the thread's, as debuggers show it.
    """

    def __init__(self, name: str = "meshsdk") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._runner: _Runner | None = None
        _all.add(self)

    def __repr__(self) -> str:
        return f"<Background {self._name!r} {'running' if self._runner else 'at rest'}>"

    def submit(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `function(*args)` as a task on the loop; from any thread. Cancelling the future cancels the task."""
        loop = self._started().loop
        return Context().run(asyncio.run_coroutine_threadsafe, function(*args, **kwargs), loop)

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` on the loop; from any thread. It must not block."""
        self._started().loop.call_soon_threadsafe(function, *args, context=Context())

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this thread, which must not wait for its own work."""
        return self._runner is not None and threading.current_thread() is self._runner.thread

    def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """Cancel all work and end the thread, waiting at most `timeout` seconds; later work starts another."""
        with self._lock:
            runner, self._runner = self._runner, None
        if runner is not None:
            runner.stop(timeout)
            if runner.thread.is_alive() and threading.current_thread() is not runner.thread:
                _log.warning("work in the background did not end within %g s of being cancelled", timeout)

    def _started(self) -> _Runner:
        runner = self._runner
        if runner is None:
            with self._lock:
                runner = self._runner = self._runner or _Runner(self._name)
        return runner

    def _renew(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent may have held it
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.let_go()


_all: weakref.WeakSet[Background] = weakref.WeakSet()


def _after_fork() -> None:
    for background in list(_all):
        background._renew()  # noqa: SLF001  # this module's own


def _at_exit() -> None:
    for background in list(_all):
        background.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)

"""Carries the request being served into threads, which by default start with an empty context.

Asyncio tasks, `asyncio.to_thread` and anyio's threads copy the context by themselves; `threading.Thread` and
`ThreadPoolExecutor.submit` (and so `loop.run_in_executor`) do not. Only two variables go along: the inbound request and
OpenTelemetry's context. The whole context would also carry what belongs to the submitting task alone.

Rule 1  A job sees exactly what its submitter saw, nothing included: a pool's thread must not keep the request for which
        it happened to be started.
Rule 2  A pool's own thread is started inside a `submit`; it inherits nothing, for its jobs bring their own.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from opentelemetry.context import Context, attach, get_current

from meshsdk.telemetry.context import Inbound, current

__all__ = ["follow", "unfollow"]

P = ParamSpec("P")
T = TypeVar("T")
Carried = tuple[Inbound | None, Context]

# Runs jobs in other interpreters (3.14), where these objects cannot go.
_INTERPRETERS: type | tuple[()] = getattr(concurrent.futures, "InterpreterPoolExecutor", ())

_originals: tuple[Callable[..., None], Callable[..., Future[object]]] | None = None
_submitting = threading.local()


def follow() -> None:
    """Let threads and thread pools carry the request being served, in the whole process; a second call does nothing."""
    global _originals
    if _originals is None:
        _originals = threading.Thread.start, ThreadPoolExecutor.submit
        threading.Thread.start = _starting(threading.Thread.start)  # type: ignore[method-assign, assignment]
        ThreadPoolExecutor.submit = _handing_in(ThreadPoolExecutor.submit)  # type: ignore[method-assign]


def unfollow() -> None:
    """Take back `follow`, for tests; whoever wrapped the same methods since is taken back too."""
    global _originals
    if _originals is not None:
        threading.Thread.start, ThreadPoolExecutor.submit = _originals  # type: ignore[method-assign, assignment]
        _originals = None


def _starting(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    @wraps(start)
    def start_and_carry(thread: threading.Thread) -> None:
        carried = current.get(), get_current()
        if thread.ident is not None or not any(carried) or getattr(_submitting, "now", False):
            return start(thread)
        run = thread.run
        thread.run = partial(_run_thread, carried, thread, run)  # type: ignore[method-assign]
        try:
            return start(thread)
        except RuntimeError:  # no more threads: the caller may try again later
            thread.run = run  # type: ignore[method-assign]
            raise

    return start_and_carry


def _run_thread(carried: Carried, thread: threading.Thread, run: Callable[[], None]) -> None:
    del thread.run  # it held the thread itself, and what it carried, beyond the thread's end
    _inside(carried, run)


def _handing_in(submit: Callable[..., Future[T]]) -> Callable[..., Future[T]]:
    @wraps(submit)
    def submit_and_carry(
        pool: ThreadPoolExecutor, fn: Callable[..., T], /, *args: object, **kwargs: object
    ) -> Future[T]:
        if isinstance(pool, _INTERPRETERS):
            return submit(pool, fn, *args, **kwargs)
        _submitting.now = True
        try:
            return submit(pool, _inside, (current.get(), get_current()), fn, *args, **kwargs)
        finally:
            _submitting.now = False

    return submit_and_carry


def _inside(carried: Carried, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    inbound, context = carried
    token, before = current.set(inbound), get_current()
    attach(context)
    try:
        return fn(*args, **kwargs)
    finally:
        attach(before)
        current.reset(token)

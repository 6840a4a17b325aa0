"""From httpcore's exceptions to `Failure`, by one table."""

from __future__ import annotations

import os

import h11
import httpcore

from meshsdk.core.model import Failure, Phase
from meshsdk.wire.engine import InvalidRequest
from meshsdk.wire.progress import Overdue, Progress

__all__ = ["FAULTS", "failure", "root"]

# First match wins, so the narrower classes stand first. No class of the standard library is here: those come out of
# the request body's own iterator, and say nothing about the endpoint.
_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (httpcore.ConnectTimeout, "connect-failure"),
    (httpcore.TimeoutException, "timeout"),
    (Overdue, "timeout"),
    (httpcore.ConnectError, "connect-failure"),
    (httpcore.NetworkError, "reset"),
    (httpcore.RemoteProtocolError, "protocol"),
)

# httpcore wraps h11's refusal of a head, and lets that of a body (shorter than its Content-Length) through.
_OUR_OWN = (httpcore.LocalProtocolError, h11.LocalProtocolError)

FAULTS: tuple[type[Exception], ...] = (*(exception for exception, _ in _KINDS), *_OUR_OWN)


def failure(error: Exception, progress: Progress) -> Failure:
    """What `error` means for a send that got as far as `progress` says.

    Raises:
        InvalidRequest: h11 refused the request that we wanted to send.
    """
    if isinstance(error, _OUR_OWN):
        raise InvalidRequest(str(error)) from error
    kind = next(kind for exception, kind in _KINDS if isinstance(error, exception))
    if kind == "protocol" and progress.ended_by_peer:
        kind = "reset"  # h11 reports an early end as a breach of protocol
    if isinstance(error, httpcore.ConnectTimeout) and progress.overdue:
        kind = "timeout"  # the time for the try was over, which says little about the endpoint
    return Failure(progress.phase, kind, _detail(kind, error, progress), root(error))


def _detail(kind: str, error: Exception, progress: Progress) -> str:
    if isinstance(error, httpcore.PoolTimeout):
        return f"no connection came free; all {progress.bounds.max_connections} allowed to this instance are in use"
    if kind == "timeout":
        return _late(progress)
    if isinstance(error, httpcore.ConnectTimeout):
        return f"no connection within {progress.bounds.connect:g} s"
    if kind == "reset":
        return _lost(progress, error)
    return _words(root(error))


def _late(progress: Progress) -> str:
    if progress.reading_body:
        return "the reply's body was not complete in time" if progress.overdue else "the reply's body went silent"
    if progress.phase == Phase.NOT_CONNECTED:
        return "no connection in time"
    if progress.phase == Phase.REPLY_STARTED:
        return "the reply's head was not complete in time"
    return "no reply in time"


def _lost(progress: Progress, error: Exception) -> str:
    how = "closed the connection" if progress.ended_by_peer else f"connection broken ({_words(root(error))})"
    when = {True: "in the middle of the body"}.get(progress.reading_body)
    when = when or ("in the middle of the head" if progress.phase == Phase.REPLY_STARTED else "before any reply")
    return f"{how} {when}"


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)  # asyncio has its own text, which leaves out what went wrong
    return str(error) or type(error).__name__


def root(error: BaseException) -> BaseException:
    """The operating system's error underneath; httpcore keeps it as its exception's argument, anyio as the cause."""
    while True:
        under = error.__cause__ or next(iter(error.args), None)
        if not isinstance(under, Exception):
            return error
        error = under

"""What an exception of an HTTP library's transport means for a try: how far it got, and what to call it.

Only the exceptions that their library documents as raised before a request is sent count as such; of all others it is
taken that the request was written, so that nothing is repeated on a guess.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from meshsdk.core.model import Failure, Phase
from meshsdk.wire.engine import Bounds
from meshsdk.wire.failures import connect_timed_out, late, lost, unconnected, words
from meshsdk.wire.httpcore_failures import root

__all__ = ["failure"]

# How httpcore, h11 and h2 say that the peer closed. Of any other text nothing is concluded: a `protocol` failure.
_CLOSED = ("disconnected", "closed connection")


def failure(error: Exception, library: ModuleType, bounds: Bounds, now: float, phase: Phase) -> Failure:
    """The failure that `error` is.

    Args:
        error: a `TransportError` of `library`, and not a `LocalProtocolError`.
        now: on the clock of the bounds.
        phase: how far the try got if the exception does not say otherwise: `REPLY_STARTED` in a body, else `WRITTEN`.
    """
    if phase == Phase.WRITTEN and (before := _nothing_sent(error, library, bounds, now)):
        return before
    in_body = phase == Phase.REPLY_STARTED
    if isinstance(error, library.TimeoutException):
        over = (bounds.body_deadline if in_body else bounds.deadline) <= now
        return Failure(phase, "timeout", late(phase, in_body, over).detail, error)
    if isinstance(error, library.NetworkError):
        return lost(phase, in_body, root(error))
    if any(text in str(error) for text in _CLOSED):
        return Failure(phase, "reset", lost(phase, in_body, None).detail, error)
    return Failure(phase, "protocol", words(error), error)


def _nothing_sent(error: Exception, library: Any, bounds: Bounds, now: float) -> Failure | None:
    if isinstance(error, library.ConnectTimeout):
        if bounds.deadline <= now:
            return late(Phase.NOT_CONNECTED, in_body=False, overdue=True)
        return connect_timed_out(bounds.connect)
    if isinstance(error, library.PoolTimeout):
        return Failure(Phase.NOT_CONNECTED, "timeout", "no connection of the transport came free in time", error)
    if isinstance(error, (library.ConnectError, library.ProxyError)):
        return unconnected(root(error))
    return None

"""The tries of one call: each is sent in a span of its own, and how the last one failed is remembered.

One object is the call's request and the sender of all its tries, so that a call makes no more objects than it must.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from meshsdk.client.outgoing import Outgoing
from meshsdk.core.model import Failure, TransportFailure
from meshsdk.wire.undelivered import undelivered

if TYPE_CHECKING:
    from meshsdk.core.attempt import Attempt
    from meshsdk.telemetry.tracing import CallSpan
    from meshsdk.wire.engine import AsyncEngine, AsyncReply, Engine, Reply

__all__ = ["AsyncTries", "Tries"]


def _undelivered(reply: Reply | AsyncReply) -> Failure | None:
    """What a sidecar's answer counts as whose app never got the request."""
    stream = reply.extensions.get("network_stream")
    return None if stream is None else undelivered(reply.headers, stream)


def _fail(failure: Failure) -> NoReturn:
    raise TransportFailure(failure)


class Tries(Outgoing):
    """Sends on an engine; `drive` calls `send`."""

    __slots__ = ("engine", "failure", "span")

    engine: Engine
    failure: Failure | None
    span: CallSpan

    def send(self, attempt: Attempt) -> Reply:
        """Make one try; raises what the engine raises."""
        endpoint = attempt.endpoint
        span = self.span.attempt(attempt.number, endpoint.address, endpoint.port)
        try:
            reply = self.engine.send(endpoint, self, self.prepare(attempt, span.headers))
            if reply.status == 503 and (failure := _undelivered(reply)):
                reply.close()
                _fail(failure)
        except TransportFailure as error:
            self.failure = self.told(error.failure)
            span.end(None, error.failure.kind)
            raise
        except BaseException:
            span.end(None, "cancelled")
            raise
        span.end(reply.status, None)
        return reply


class AsyncTries(Outgoing):
    """The same for asyncio; `adrive` calls `send`."""

    __slots__ = ("engine", "failure", "span")

    engine: AsyncEngine
    failure: Failure | None
    span: CallSpan

    async def send(self, attempt: Attempt) -> AsyncReply:
        """Make one try; raises what the engine raises."""
        endpoint = attempt.endpoint
        span = self.span.attempt(attempt.number, endpoint.address, endpoint.port)
        try:
            reply = await self.engine.send(endpoint, self, self.prepare(attempt, span.headers))
            if reply.status == 503 and (failure := _undelivered(reply)):
                await reply.aclose()
                _fail(failure)
        except TransportFailure as error:
            self.failure = self.told(error.failure)
            span.end(None, error.failure.kind)
            raise
        except BaseException:
            span.end(None, "cancelled")
            raise
        span.end(reply.status, None)
        return reply

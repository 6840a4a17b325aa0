"""The engine on asyncio: finds or opens a connection, sends, waits for the head."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Collection
from typing import cast

from meshsdk.core.model import Endpoint, Phase, TransportFailure
from meshsdk.wire.aio.connection import Connection
from meshsdk.wire.aio.pool import Pool
from meshsdk.wire.aio.pools import Pools
from meshsdk.wire.aio.reply import AsyncioReply
from meshsdk.wire.aio.ticket import connection_of
from meshsdk.wire.aio.upload import upload
from meshsdk.wire.engine import Bounds, Request
from meshsdk.wire.failures import late
from meshsdk.wire.forks import forget_in_children
from meshsdk.wire.http1 import Framing, Head, Limits, write_head
from meshsdk.wire.loops import PerLoop
from meshsdk.wire.pooling import Pooling
from meshsdk.wire.security import Secure, in_clear
from meshsdk.wire.steps import astep

__all__ = ["AsyncioEngine"]


class AsyncioEngine:
    """Sends from any number of asyncio loops, each with connections of its own that close when the loop shuts down.

    Args:
        clock: seconds, monotonic; deadlines are on it.
        limits: what is read of a reply besides its body.
        pooling: how connections are kept.
        secure: how to secure connections to an endpoint; clear text by default.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        limits: Limits | None = None,
        pooling: Pooling | None = None,
        secure: Secure | None = None,
    ) -> None:
        self._clock = clock
        self._limits = limits or Limits()
        self._pooling = pooling or Pooling()
        self._secure = secure or in_clear
        self._loops: PerLoop[Pools] = PerLoop(self._make, Pools.close)
        forget_in_children(self)

    async def send(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> AsyncioReply:
        """Send `request` to `endpoint` and wait for the reply's head, or all of a short reply.

        Raises:
            TransportFailure: it failed; says how far it got.
            InvalidRequest: it is not valid HTTP/1.1.
        """
        body = request.body
        whole = isinstance(body, bytes)
        head = write_head(request.method, request.target, request.headers, len(body) if whole else None)  # type: ignore[arg-type]
        pools = self._loops.current() or await self._loops.enter()
        now = self._clock()
        if bounds.deadline <= now:
            raise TransportFailure(late(Phase.NOT_CONNECTED, in_body=False, overdue=True))
        pool = pools.pool(endpoint, bounds.max_connections, request.service)
        connection = pool.take(now)
        if request.extensions and "trace" in request.extensions:
            return await _traced(pool, connection, request, head, bounds)
        reply = _start(connection or await connection_of(pool, bounds), request, head, bounds)
        wait = pools.awake.wait(pool.looking)
        try:
            # `reply.head()`, without the frames of two more coroutines.
            while not reply.arrived and reply.error is None:
                await reply.news()
        except asyncio.CancelledError:
            reply.abandon()
            raise
        finally:
            wait.end()
        if reply.error is not None:
            raise reply.error
        return reply

    async def warm(self, endpoint: Endpoint, count: int, bounds: Bounds, service: str = "") -> None:
        """Open connections ahead of the first send, until `count` are open; does not wait for them."""
        pools = self._loops.current() or await self._loops.enter()
        pools.pool(endpoint, bounds.max_connections, service).warm(count, bounds)

    async def retire(self, gone: Collection[Endpoint], service: str = "") -> None:
        """Let go of the connections to endpoints of a service: close what is idle; what is in flight finishes."""
        pools = self._loops.current()
        if pools is not None:
            pools.retire(gone, service)

    async def aclose(self) -> None:
        """Close every connection of the running loop; those of other loops close when their loop ends."""
        await self._loops.leave()

    def forget_inherited(self) -> None:
        """In a forked child: forget the parent's loops. Their sockets belong to a loop that does not run here."""
        self._loops = PerLoop(self._make, Pools.close)

    def _make(self) -> Pools:
        return Pools(self._clock, self._limits, self._pooling, self._secure)


def _start(connection: Connection, request: Request, head: Head, bounds: Bounds) -> AsyncioReply:
    """Send the request, or begin to, over a connection that was just found alive."""
    reply = AsyncioReply(connection)
    connection.last = head.closes
    body = cast("bytes | AsyncIterable[bytes]", request.body)
    if isinstance(body, bytes) and not head.expects and head.length != Framing.CHUNKED:
        connection.start(reply, request.method, head.data + body if body else head.data, bounds)
    else:
        connection.start(reply, request.method, head.data, bounds, uploading=True)
        reply.carry(asyncio.create_task(upload(connection, reply, body, head.length, head.expects)))
    return reply


async def _traced(
    pool: Pool, connection: Connection | None, request: Request, head: Head, bounds: Bounds
) -> AsyncioReply:
    """Send, telling the `trace` extension of each step; what that raises is the caller's."""
    trace = request.extensions["trace"]
    try:
        if connection is None:
            async with astep(trace, "connection.connect_tcp", host=pool.endpoint.address, port=pool.endpoint.port):
                connection = await connection_of(pool, bounds)
        await trace("http11.send_request_headers.started", {"method": request.method, "target": request.target})
    except BaseException:
        if connection is not None:
            pool.release(connection)
        raise
    reply = _start(connection if connection.alive else await connection_of(pool, bounds), request, head, bounds)
    try:
        await trace("http11.send_request_headers.complete", {})
        async with astep(trace, "http11.receive_response_headers") as result:
            await reply.head()
            result["return_value"] = (reply.status, reply.reason, reply.headers)
    except BaseException:
        reply.abandon()
        raise
    return reply

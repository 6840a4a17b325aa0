"""The engine on asyncio: finds or opens a connection, sends, waits for the head."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Collection
from typing import cast

from meshsdk.core.model import Endpoint, Failure, Phase, TransportFailure
from meshsdk.wire.aio.connection import Connection
from meshsdk.wire.aio.pool import Pool, Pools, Waiter
from meshsdk.wire.aio.reply import AsyncioReply
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
        reply = _start(connection or await _wait(pool, bounds), request, head, bounds)
        # `reply.head()`, without the frames of two more coroutines.
        while not reply.arrived and reply.error is None:
            try:
                await reply.news()
            except asyncio.CancelledError:
                reply.abandon()
                raise
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


class _Ticket(Waiter):
    """A send that awaits its connection."""

    __slots__ = ("_connection", "_future")

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(bounds)
        self._future: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._connection: Connection | None = None

    @classmethod
    async def wait(cls, pool: Pool, bounds: Bounds) -> Connection:
        """Wait for a connection of `pool`; raises TransportFailure where there is none to be had."""
        ticket = cls(bounds)
        pool.enqueue(ticket)
        try:
            return await ticket._future
        except asyncio.CancelledError:
            ticket.leave()
            if ticket._connection is not None:  # granted, and cancelled before it was noticed
                pool.release(ticket._connection)
            elif ticket._future.done() and not ticket._future.cancelled():
                ticket._future.exception()  # refused likewise; asyncio complains of what nobody looked at
            raise

    def granted(self, connection: Connection) -> None:
        """Here is one."""
        self._connection = connection
        if self._future.cancelled():
            return
        self._future.set_result(connection)

    def refused(self, failure: Failure) -> None:
        """There will be none."""
        if not self._future.done():
            self._future.set_exception(TransportFailure(failure))


async def _wait(pool: Pool, bounds: Bounds) -> Connection:
    while True:
        connection = await _Ticket.wait(pool, bounds)
        if connection.startable:
            return connection
        if connection.ended is not None:  # else it was an older one, and closed between being granted and being noticed
            raise TransportFailure(connection.ended)


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
                connection = await _wait(pool, bounds)
        await trace("http11.send_request_headers.started", {"method": request.method, "target": request.target})
    except BaseException:
        if connection is not None:
            pool.release(connection)
        raise
    reply = _start(connection if connection.alive else await _wait(pool, bounds), request, head, bounds)
    try:
        await trace("http11.send_request_headers.complete", {})
        async with astep(trace, "http11.receive_response_headers") as result:
            await reply.head()
            result["return_value"] = (reply.status, reply.reason, reply.headers)
    except BaseException:
        reply.abandon()
        raise
    return reply

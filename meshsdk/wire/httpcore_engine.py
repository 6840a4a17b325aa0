"""The engine on httpcore, httpx's own: one httpcore pool per endpoint; blocking and asyncio side by side."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from typing import Any

import httpcore

from meshsdk.core.model import Endpoint, TransportFailure
from meshsdk.wire.engine import Bounds, Headers, Request
from meshsdk.wire.failures import FAULTS, failure
from meshsdk.wire.httpcore_backend import AsyncBackend, Backend
from meshsdk.wire.loops import LoopPools
from meshsdk.wire.pools import Pools, Slot
from meshsdk.wire.progress import Progress
from meshsdk.wire.retry_after import retry_after

__all__ = ["AsyncHttpcoreEngine", "AsyncHttpcoreReply", "HttpcoreEngine", "HttpcoreReply"]

# uvicorn and Node close a connection that was idle for 5 s. Below that, we rarely write to one that is just closing.
_KEEP_ALIVE = 4.0

# The host is never looked up (`Backend` knows the endpoint) nor sent (the `Host` header is among the headers).
_SCHEME, _HOST = b"http", b"endpoint"


class _Head:
    """What both colours of a reply have in common: the head, and where the connection goes back to."""

    __slots__ = ("_closed", "_pools", "_progress", "_response", "_slot")

    def __init__(self, response: httpcore.Response, progress: Progress, pools: Pools[Any], slot: Slot[Any]) -> None:
        self._response = response
        self._progress = progress
        self._pools = pools
        self._slot = slot
        self._closed = False
        progress.reading_body = True

    @property
    def status(self) -> int:
        """The status code."""
        return self._response.status

    @property
    def headers(self) -> Headers:
        """The header fields in the order and case they came in."""
        return self._response.headers

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asks to wait; looked for where the status is an error."""
        return retry_after(self._response.headers) if self._response.status >= 400 else None

    @property
    def extensions(self) -> dict[str, Any]:
        """`http_version`, `reason_phrase` and `network_stream`, as httpx names them."""
        return dict(self._response.extensions)


class HttpcoreReply(_Head):
    """A reply whose body is read by iterating."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_stream()
        except FAULTS as error:
            raise TransportFailure(failure(error, self._progress)) from error

    def close(self) -> None:
        """Let go of the connection; one whose body was not read to its end is closed."""
        if self._closed:
            return
        self._closed = True
        try:
            self._response.close()
        finally:
            self._pools.give(self._slot)
            _close(self._pools)


class AsyncHttpcoreReply(_Head):
    """The same for asyncio."""

    __slots__ = ()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.aiter_stream():
                yield piece
        except FAULTS as error:
            raise TransportFailure(failure(error, self._progress)) from error

    async def aclose(self) -> None:
        """Let go of the connection; one whose body was not read to its end is closed."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._response.aclose()
        finally:
            self._pools.give(self._slot)
            await _aclose(self._pools)


class HttpcoreEngine:
    """Sends from any thread.

    In a forked child the parent's connections are dropped unused, as two processes on one connection would read each
    other's replies.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pools: Pools[httpcore.ConnectionPool] = Pools(_pool)
        _engines.add(self)

    def send(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> HttpcoreReply:
        """Send `request` to `endpoint` and wait for the reply's head.

        Raises:
            TransportFailure: it failed; says how far it got.
            InvalidRequest: it is not valid HTTP/1.1.
        """
        pools = self._pools
        progress = Progress(self._clock, bounds)
        slot = pools.take(endpoint, bounds.max_connections, self._clock())
        try:
            _close(pools)
            response = slot.pool.handle_request(_outgoing(request, progress))
        except FAULTS as error:
            pools.give(slot)
            raise TransportFailure(failure(error, progress)) from error
        except BaseException:
            pools.give(slot)
            raise
        return HttpcoreReply(response, progress, pools, slot)

    def retire(self, gone: Collection[Endpoint]) -> None:
        """Close what is idle to endpoints that are no more; what is in flight finishes."""
        self._pools.retire(gone)
        _close(self._pools)

    def close(self) -> None:
        """Close every connection; a later `send` opens new ones."""
        for pool in self._pools.drain():
            pool.close()

    def forget_inherited(self) -> None:
        """In a forked child: let go of the parent's connections without a byte, and without any of its locks."""
        inherited, self._pools = self._pools, Pools(_pool)
        for pool in inherited.everything():
            for connection in pool.connections:
                connection.close()


class AsyncHttpcoreEngine:
    """Sends from any number of asyncio loops, each with connections of its own that close when the loop shuts down."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._loops: LoopPools[httpcore.AsyncConnectionPool] = LoopPools(_async_pool, _aclose_all)
        _engines.add(self)

    async def send(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> AsyncHttpcoreReply:
        """Send `request` to `endpoint` and wait for the reply's head; raises as `HttpcoreEngine.send` does."""
        pools = self._loops.current() or await self._loops.enter()
        progress = Progress(self._clock, bounds)
        slot = pools.take(endpoint, bounds.max_connections, self._clock())
        try:
            await _aclose(pools)
            response = await slot.pool.handle_async_request(_outgoing(request, progress))
        except FAULTS as error:
            pools.give(slot)
            raise TransportFailure(failure(error, progress)) from error
        except BaseException:
            pools.give(slot)
            raise
        return AsyncHttpcoreReply(response, progress, pools, slot)

    async def retire(self, gone: Collection[Endpoint]) -> None:
        """Close what is idle to endpoints that are no more; what is in flight finishes."""
        pools = self._loops.current()
        if pools is not None:
            pools.retire(gone)
            await _aclose(pools)

    async def aclose(self) -> None:
        """Close every connection of the running loop; those of other loops close when their loop ends."""
        await self._loops.leave()

    def forget_inherited(self) -> None:
        """In a forked child: forget the parent's loops. Their sockets belong to a loop that does not run here."""
        self._loops = LoopPools(_async_pool, _aclose_all)


def _pool(endpoint: Endpoint, limit: int) -> httpcore.ConnectionPool:
    return httpcore.ConnectionPool(
        max_connections=limit or None,
        keepalive_expiry=_KEEP_ALIVE,
        network_backend=Backend(endpoint),
    )


def _async_pool(endpoint: Endpoint, limit: int) -> httpcore.AsyncConnectionPool:
    return httpcore.AsyncConnectionPool(
        max_connections=limit or None,
        keepalive_expiry=_KEEP_ALIVE,
        network_backend=AsyncBackend(endpoint),
    )


def _outgoing(request: Request, progress: Progress) -> httpcore.Request:
    waits = {"connect": progress, "read": progress, "write": progress, "pool": progress.for_pool()}
    return httpcore.Request(
        request.method,
        httpcore.URL(scheme=_SCHEME, host=_HOST, target=request.target),
        headers=request.headers,
        content=request.body,
        extensions={**request.extensions, "timeout": waits},
    )


def _close(pools: Pools[httpcore.ConnectionPool]) -> None:
    for pool in pools.spent():
        pool.close()


async def _aclose(pools: Pools[httpcore.AsyncConnectionPool]) -> None:
    for pool in pools.spent():
        await pool.aclose()


async def _aclose_all(pools: Pools[httpcore.AsyncConnectionPool]) -> None:
    for pool in pools.drain():
        await pool.aclose()


_engines: weakref.WeakSet[HttpcoreEngine | AsyncHttpcoreEngine] = weakref.WeakSet()


def _forget_inherited() -> None:
    for engine in tuple(_engines):
        engine.forget_inherited()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited)

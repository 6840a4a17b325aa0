"""The engine on httpcore, httpx's own: its connections, in lanes of ours; blocking, and on asyncio or trio."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from typing import Any

import anyio
import httpcore

from meshsdk.core.model import Endpoint, TransportFailure
from meshsdk.wire.engine import Bounds, Headers, Request
from meshsdk.wire.httpcore_backend import AsyncBackend, Backend
from meshsdk.wire.httpcore_failures import FAULTS, failure
from meshsdk.wire.httpcore_runs import PerRun
from meshsdk.wire.lanes import Lane, Lanes
from meshsdk.wire.progress import Progress
from meshsdk.wire.retry_after import retry_after
from meshsdk.wire.security import Secure

__all__ = ["AsyncHttpcoreEngine", "AsyncHttpcoreReply", "HttpcoreEngine", "HttpcoreReply"]

# uvicorn and Node close a connection that was idle for 5 s. Below that, we rarely write to one that is just closing.
_KEEP_ALIVE = 4.0

# The host is never looked up (`Backend` knows the endpoint) nor sent (the `Host` header is among the headers).
_SCHEME, _HOST, _PORT = b"http", b"endpoint", 80
_ORIGIN = httpcore.Origin(_SCHEME, _HOST, _PORT)

_Lanes = Lanes[httpcore.HTTPConnection, threading.Semaphore]
_Lane = Lane[httpcore.HTTPConnection, threading.Semaphore]
_AsyncLanes = Lanes[httpcore.AsyncHTTPConnection, anyio.Semaphore]
_AsyncLane = Lane[httpcore.AsyncHTTPConnection, anyio.Semaphore]


class _Head:
    """What both colours of a reply have in common: the head."""

    __slots__ = ("_closed", "_progress", "_response")

    def __init__(self, response: httpcore.Response, progress: Progress) -> None:
        self._response = response
        self._progress = progress
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

    def whole(self) -> None:
        """Never known before it is read."""
        return

    @property
    def extensions(self) -> dict[str, Any]:
        """`http_version`, `reason_phrase` and `network_stream`, as httpx names them."""
        return dict(self._response.extensions)


class HttpcoreReply(_Head):
    """A reply whose body is read by iterating."""

    __slots__ = ("_connection", "_lane", "_lanes")

    def __init__(
        self,
        response: httpcore.Response,
        progress: Progress,
        lanes: _Lanes,
        lane: _Lane,
        connection: httpcore.HTTPConnection,
    ) -> None:
        super().__init__(response, progress)
        self._lanes = lanes
        self._lane = lane
        self._connection = connection

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
            _leave(self._lanes, self._lane, self._connection)


class AsyncHttpcoreReply(_Head):
    """The same for asyncio and trio."""

    __slots__ = ("_connection", "_lane", "_lanes")

    def __init__(
        self,
        response: httpcore.Response,
        progress: Progress,
        lanes: _AsyncLanes,
        lane: _AsyncLane,
        connection: httpcore.AsyncHTTPConnection,
    ) -> None:
        super().__init__(response, progress)
        self._lanes = lanes
        self._lane = lane
        self._connection = connection

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
            await _aleave(self._lanes, self._lane, self._connection)


class HttpcoreEngine:
    """Sends from any thread.

    In a forked child the parent's connections are dropped unused, as two processes on one connection would read each
    other's replies.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, secure: Secure | None = None) -> None:
        self._clock = clock
        self._secure = secure
        self._lanes: _Lanes = Lanes(threading.Semaphore)
        _engines.add(self)

    def send(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> HttpcoreReply:
        """Send `request` to `endpoint` and wait for the reply's head.

        Raises:
            TransportFailure: it failed; says how far it got.
            InvalidRequest: it is not valid HTTP/1.1.
        """
        lanes = self._lanes
        progress = Progress(self._clock, bounds)
        lane = lanes.enter(endpoint, bounds.max_connections, self._clock(), request.service)
        connection = None
        try:
            connection = _connection(lanes, lane, progress, Backend(endpoint, request.service, self._secure))
            response = connection.handle_request(_outgoing(request, progress))
        except FAULTS as error:
            _leave(lanes, lane, connection)
            raise TransportFailure(failure(error, progress)) from error
        except BaseException:
            _leave(lanes, lane, connection)
            raise
        return HttpcoreReply(response, progress, lanes, lane, connection)

    def retire(self, gone: Collection[Endpoint], service: str = "") -> None:
        """Let go of the connections to endpoints of a service: close what is idle; what is in flight finishes."""
        self._lanes.retire(gone, service)
        _close(self._lanes)

    def close(self) -> None:
        """Close every connection, in use or not; a later `send` opens new ones."""
        self._lanes.drain()
        _close(self._lanes)

    def forget_inherited(self) -> None:
        """In a forked child: let go of the parent's connections without a byte, and without any of its locks."""
        lanes, self._lanes = self._lanes, Lanes(threading.Semaphore)
        for connection in lanes.inherited():
            connection.close()


class AsyncHttpcoreEngine:
    """Sends from any number of loops and trio runs, each with connections of its own that close when it ends."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, secure: Secure | None = None) -> None:
        self._clock = clock
        self._secure = secure
        self._loops: PerRun[_AsyncLanes] = PerRun(_async_lanes, _drain)
        _engines.add(self)

    async def send(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> AsyncHttpcoreReply:
        """Send `request` to `endpoint` and wait for the reply's head; raises as `HttpcoreEngine.send` does."""
        lanes = self._loops.current() or await self._loops.enter()
        progress = Progress(self._clock, bounds)
        lane = lanes.enter(endpoint, bounds.max_connections, self._clock(), request.service)
        connection = None
        try:
            backend = AsyncBackend(endpoint, request.service, self._secure)
            connection = await _async_connection(lanes, lane, progress, backend)
            response = await connection.handle_async_request(_outgoing(request, progress))
        except FAULTS as error:
            await _aleave(lanes, lane, connection)
            raise TransportFailure(failure(error, progress)) from error
        except BaseException:
            await _aleave(lanes, lane, connection)
            raise
        return AsyncHttpcoreReply(response, progress, lanes, lane, connection)

    async def retire(self, gone: Collection[Endpoint], service: str = "") -> None:
        """Let go of the connections to endpoints of a service: close what is idle; what is in flight finishes."""
        lanes = self._loops.current()
        if lanes is not None:
            lanes.retire(gone, service)
            await _aclose(lanes)

    async def aclose(self) -> None:
        """Close every connection of the running loop or run; those of others close when it ends."""
        await self._loops.leave()

    def forget_inherited(self) -> None:
        """In a forked child: forget the parent's loops. Their sockets belong to one that does not run here."""
        self._loops = PerRun(_async_lanes, _drain)


def _connection(lanes: _Lanes, lane: _Lane, progress: Progress, backend: Backend) -> httpcore.HTTPConnection:
    """Pass the gate and take a connection; raises `PoolTimeout` without having passed."""
    if lane.gate is not None and not lane.gate.acquire(timeout=progress.for_pool()):
        raise httpcore.PoolTimeout
    connection = lanes.reuse(lane)
    if connection is None:
        connection = httpcore.HTTPConnection(_ORIGIN, keepalive_expiry=_KEEP_ALIVE, network_backend=backend)
        lanes.opened(lane, connection)
    return connection


async def _async_connection(
    lanes: _AsyncLanes, lane: _AsyncLane, progress: Progress, backend: AsyncBackend
) -> httpcore.AsyncHTTPConnection:
    if lane.gate is not None:
        await _pass(lane.gate, progress)
    connection = lanes.reuse(lane)
    if connection is None:
        connection = httpcore.AsyncHTTPConnection(_ORIGIN, keepalive_expiry=_KEEP_ALIVE, network_backend=backend)
        lanes.opened(lane, connection)
    return connection


async def _pass(gate: anyio.Semaphore, progress: Progress) -> None:
    seconds = progress.for_pool()
    with contextlib.suppress(anyio.WouldBlock):
        gate.acquire_nowait()
        return
    try:
        with anyio.fail_after(seconds):
            await gate.acquire()
    except TimeoutError:
        raise httpcore.PoolTimeout from None


def _leave(lanes: _Lanes, lane: _Lane, connection: httpcore.HTTPConnection | None) -> None:
    """End a send; without a connection it never passed the gate."""
    try:
        if connection is not None:
            lanes.let_go(lane, connection, connection.is_idle() and not connection.is_closed())
            _close(lanes)
    finally:
        if connection is not None and lane.gate is not None:
            lane.gate.release()
        lanes.leave(lane)


async def _aleave(lanes: _AsyncLanes, lane: _AsyncLane, connection: httpcore.AsyncHTTPConnection | None) -> None:
    try:
        if connection is not None:
            lanes.let_go(lane, connection, connection.is_idle() and not connection.is_closed())
            await _aclose(lanes)
    finally:
        if connection is not None and lane.gate is not None:
            lane.gate.release()
        lanes.leave(lane)


def _outgoing(request: Request, progress: Progress) -> httpcore.Request:
    waits = {"connect": progress, "read": progress, "write": progress}
    return httpcore.Request(
        request.method,
        httpcore.URL(scheme=_SCHEME, host=_HOST, port=_PORT, target=request.target),
        headers=request.headers,
        content=_Whole(request.body) if isinstance(request.body, bytes) else request.body,
        extensions={**request.extensions, "timeout": waits},
    )


class _Whole:
    """A body of bytes as httpcore takes it, in either colour."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self._data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._data)


class _Once:
    """No generator: trio complains of one that a cancelled send leaves behind."""

    __slots__ = ("_left",)

    def __init__(self, data: bytes) -> None:
        self._left = [data]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


def _close(lanes: _Lanes) -> None:
    while (connection := lanes.spent()) is not None:
        connection.close()


async def _aclose(lanes: _AsyncLanes) -> None:
    while (connection := lanes.spent()) is not None:
        with anyio.CancelScope(shield=True):  # being cancelled is no reason to leave a socket open
            await connection.aclose()


def _async_lanes() -> _AsyncLanes:
    return Lanes(anyio.Semaphore)


async def _drain(lanes: _AsyncLanes) -> None:
    lanes.drain()
    await _aclose(lanes)


_engines: weakref.WeakSet[HttpcoreEngine | AsyncHttpcoreEngine] = weakref.WeakSet()


def _forget_inherited() -> None:
    for engine in tuple(_engines):
        engine.forget_inherited()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited)

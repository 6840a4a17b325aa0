"""One face for the engines of every colour and loop, so that one test can try them all."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop

from meshsdk.core.model import Endpoint, Failure, TransportFailure
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.blocking import BlockingEngine
from meshsdk.wire.engine import Bounds, Request
from meshsdk.wire.httpcore_engine import AsyncHttpcoreEngine, HttpcoreEngine
from tests.wire.scripted import Server


class Pieces:
    """A request body for both colours; after its pieces it raises `then`."""

    def __init__(self, *pieces: bytes, then: BaseException | None = None) -> None:
        self.pieces = pieces
        self.then = then
        self.taken = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.taken += 1
            yield piece
        if self.then is not None:
            raise self.then

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


class Blocking:
    """A blocking engine, called as the tests call all; the reply is used on other threads than it was made on."""

    def __init__(self, engine: Any = BlockingEngine, **options: Any) -> None:
        self.engine = engine(**options)

    async def send(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> Any:
        return await asyncio.to_thread(self.engine.send, endpoint, request, bounds)

    async def read(self, answer: Any) -> bytes:
        return await asyncio.to_thread(b"".join, answer)

    async def piece(self, answer: Any) -> bytes:
        """The next piece of the body."""
        return await asyncio.to_thread(next, iter(answer))

    async def let_go(self, answer: Any) -> None:
        await asyncio.to_thread(answer.close)

    async def duplex(self, answer: Any, name: str, *args: Any) -> Any:
        """Call a method of the reply's `network_stream`, by its asynchronous name."""
        return await asyncio.to_thread(_method(answer, name.removeprefix("a")), *args)

    async def retire(self, *gone: Endpoint) -> None:
        self.engine.retire(gone)

    async def warm(self, endpoint: Endpoint, count: int, bounds: Bounds) -> None:
        await asyncio.to_thread(self.engine.warm, endpoint, count, bounds)

    async def close(self) -> None:
        self.engine.close()

    async def end(self) -> None:
        await self.close()

    @property
    def kept(self) -> tuple[int, int]:
        """How many connections are open, and how many of them carry nothing."""
        lanes = self.engine._lanes._lanes.values()
        assert all(lane.users == 0 for lane in lanes), "a send did not leave its lane"
        return sum(len(lane.open) for lane in lanes), sum(len(lane.idle) for lane in lanes)


class Awaiting:
    """An engine of asyncio, on the test's own loop."""

    def __init__(self, engine: Any = AsyncioEngine, **options: Any) -> None:
        self.engine = engine(**options)
        self.complaints: list[dict[str, Any]] = []
        self.loop = self._loop()
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))

    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do `work` on the engine's loop."""
        return await work()

    async def send(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> Any:
        return await self.run(lambda: self.engine.send(endpoint, request, bounds))

    async def read(self, answer: Any) -> bytes:
        async def read() -> bytes:
            return b"".join([piece async for piece in answer])

        return await self.run(read)

    async def piece(self, answer: Any) -> bytes:
        return await self.run(lambda: anext(answer))

    async def let_go(self, answer: Any) -> None:
        await self.run(answer.aclose)

    async def duplex(self, answer: Any, name: str, *args: Any) -> Any:
        return await self.run(lambda: _method(answer, name)(*args))

    async def retire(self, *gone: Endpoint) -> None:
        await self.run(lambda: self.engine.retire(gone))

    async def warm(self, endpoint: Endpoint, count: int, bounds: Bounds) -> None:
        await self.run(lambda: self.engine.warm(endpoint, count, bounds))

    async def close(self) -> None:
        await self.run(self.engine.aclose)

    async def end(self) -> None:
        await self.close()
        gc.collect()
        assert self.complaints == [], "the loop was told of errors nobody looked at"

    @property
    def kept(self) -> tuple[int, int]:
        """How many connections are open, and how many of them carry nothing."""
        homes = [found[0] for found in self.engine._loops._loops.values()]
        assert not any(home.watch._waits for home in homes), "something is watched still"
        pools = [pool for home in homes for pool in home._pools.values()]
        assert not any(pool._dialing or pool._waiting for pool in pools)
        return sum(len(pool._open) for pool in pools), sum(len(pool._idle) for pool in pools)


class OnUvloop(Awaiting):
    """The same on a loop of uvloop, which has a thread of its own."""

    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, daemon=True)
        self._thread.start()
        return loop

    async def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def on_loop() -> Any:
            try:
                return await work()
            except StopAsyncIteration:  # which no future can carry
                raise AssertionError("the body has ended") from None

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(on_loop(), self.loop))

    async def end(self) -> None:
        try:
            await super().end()
            await self.run(self.loop.shutdown_asyncgens)
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(5)
            self.loop.close()


OURS: dict[str, tuple[Any, Any]] = {
    "blocking": (Blocking, BlockingEngine),
    "asyncio": (Awaiting, AsyncioEngine),
    "uvloop": (OnUvloop, AsyncioEngine),
}
ALL: dict[str, tuple[Any, Any]] = {
    **OURS,
    "httpcore": (Blocking, HttpcoreEngine),
    "async httpcore": (Awaiting, AsyncHttpcoreEngine),
}


def at(server: Server | int) -> Endpoint:
    if isinstance(server, int):
        return Endpoint("x", "127.0.0.1", server)
    return Endpoint("x", server.host, server.port)


def get(body: Any = None, method: str = "GET", *fields: tuple[bytes, bytes], target: bytes = b"/path?q=1") -> Request:
    return Request(method, target, [(b"Host", b"payments"), *fields], body or b"", {})


def within(seconds: float, **bounds: float) -> Bounds:
    until = time.monotonic() + seconds
    return Bounds(**{"deadline": until, "body_deadline": until, **bounds})


async def failing(wire: Any, endpoint: Endpoint, bounds: Bounds, request: Request | None = None) -> Failure:
    with pytest.raises(TransportFailure) as caught:
        await wire.send(endpoint, request or get(), bounds)
    return caught.value.failure


async def failing_read(wire: Any, answer: Any) -> Failure:
    with pytest.raises(TransportFailure) as caught:
        await wire.read(answer)
    return caught.value.failure


async def called(wire: Any, endpoint: Endpoint, bounds: Bounds, request: Request | None = None) -> bytes:
    """Send, read all, let go: the body."""
    answer = await wire.send(endpoint, request or get(), bounds)
    try:
        body: bytes = await wire.read(answer)
        return body
    finally:
        await wire.let_go(answer)


def _method(answer: Any, name: str) -> Any:
    return getattr(answer.extensions["network_stream"], name)

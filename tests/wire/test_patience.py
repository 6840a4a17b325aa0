"""When a send waits for connections that are open, and when another is opened for it.

The engine's clock stands still but for what the test lets pass; a connection takes as long to open as `secure` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from meshsdk.core.model import Endpoint
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.engine import Bounds
from meshsdk.wire.pooling import Pooling
from tests.wire.callers import at, get
from tests.wire.scripted import Peer, Server, eventually, reply

BOUNDS = Bounds(deadline=1000.0, body_deadline=1000.0)


class Stage:
    """An engine, and a server that answers when it is told to, once for each time."""

    def __init__(self, serve: Callable[..., Server], took: float, **pooling: Any) -> None:
        self.now = 0.0
        self.took = took
        self.server = serve(_when_told)
        self.engine = AsyncioEngine(lambda: self.now, pooling=Pooling(**pooling), secure=self._open)
        self.sends: list[asyncio.Task[Any]] = []
        self.under_way: list[int] = []

    @property
    def pool(self) -> Any:
        pools = self.engine._loops.current()
        assert pools is not None
        (pool,) = {*pools._pools.values(), *pools.retired}
        return pool

    def _open(self, endpoint: Endpoint, service: str) -> None:
        self.now += self.took
        self.under_way.append(self.pool._dialing)

    async def opened(self, count: int) -> None:
        """Soon so many connections have been opened, and no more."""
        await asyncio.to_thread(eventually, lambda: self.server.connections >= count)
        await asyncio.sleep(0.15)  # longer than anybody's patience
        assert self.server.connections == count

    def send(self, count: int = 1, bounds: Bounds = BOUNDS) -> None:
        self.sends += [asyncio.create_task(self._one(bounds)) for _ in range(count)]

    async def _one(self, bounds: Bounds) -> int:
        answer = await self.engine.send(at(self.server), get(), bounds)
        await answer.aclose()
        return answer.status

    async def answered(self) -> None:
        self.server.go_on.set()
        assert {*await asyncio.gather(*self.sends)} == {200}


def _when_told(peer: Peer) -> None:
    while peer.request() is not None:
        peer.server.go_on.wait(10)
        peer.send(reply(b"ok"))


@asynccontextmanager
async def staged(serve: Callable[..., Server], took: float = 0.05, **pooling: Any) -> AsyncIterator[Stage]:
    stage = Stage(serve, took, **pooling)
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    try:
        yield stage
        assert complaints == []
    finally:
        stage.server.go_on.set()
        await stage.engine.aclose()
        for send in stage.sends:
            send.cancel()
        await asyncio.gather(*stage.sends, return_exceptions=True)


async def test_few_are_opened_at_once(serve: Callable[..., Server]) -> None:
    async with staged(serve, eager=3) as stage:
        for count in (1, 2, 3):
            stage.send()
            await stage.opened(count)
        await stage.answered()


async def test_where_many_are_open_a_send_waits_for_those(serve: Callable[..., Server]) -> None:
    async with staged(serve, eager=2) as stage:
        stage.send(2)
        await stage.opened(2)
        stage.send(5)
        await stage.opened(2)
        await stage.answered()
        assert stage.server.connections == 2


@pytest.mark.parametrize(("took", "patience"), [(0.05, 0.05), (7.0, 0.1)])
async def test_but_no_longer_than_opening_one_took(serve: Callable[..., Server], took: float, patience: float) -> None:
    async with staged(serve, took, eager=1) as stage:
        stage.send()
        await stage.opened(1)
        stage.send(3)
        await stage.opened(1)
        stage.took = 0.0
        stage.now += patience - 0.001
        await stage.opened(1)
        stage.now += 0.002
        await stage.opened(4)
        assert max(stage.under_way) == 3, "at the same time"
        await stage.answered()


@pytest.mark.parametrize("took", [0.0, 0.001])
async def test_one_that_is_opened_in_no_time_is_opened_at_once(serve: Callable[..., Server], took: float) -> None:
    async with staged(serve, took, eager=1) as stage:
        stage.send(4)
        await stage.opened(4)
        await stage.answered()


async def test_nobody_waits_for_those_of_a_retired_pool(serve: Callable[..., Server]) -> None:
    async with staged(serve, eager=1) as stage:
        stage.send()
        await stage.opened(1)
        stage.send(2)
        await stage.opened(1)
        await stage.engine.retire([at(stage.server)])
        await stage.opened(3)
        await stage.answered()


async def test_nobody_waits_for_one_that_is_gone(serve: Callable[..., Server]) -> None:
    async with staged(serve, eager=1) as stage:
        stage.send()
        await stage.opened(1)
        stage.send()
        await stage.opened(1)
        stage.sends.pop(0).cancel()  # its connection closes with it
        await stage.opened(2)
        await stage.answered()


async def test_no_more_than_are_allowed_are_opened_by_who_loses_patience(serve: Callable[..., Server]) -> None:
    bounds = Bounds(deadline=1000.0, body_deadline=1000.0, max_connections=2)
    async with staged(serve, eager=1) as stage:
        stage.send(1, bounds)
        await stage.opened(1)
        stage.send(4, bounds)
        await stage.opened(1)
        stage.now += 0.2
        await stage.opened(2)
        await stage.answered()


async def test_the_end_of_the_engine_leaves_no_alarm(serve: Callable[..., Server]) -> None:
    async with staged(serve, eager=1) as stage:
        stage.send()
        await stage.opened(1)
        stage.send()
        await stage.opened(1)
        pool = stage.pool
        assert pool._alarm is not None
        await stage.engine.aclose()
        assert pool._alarm is None
        assert stage.server.connections == 1

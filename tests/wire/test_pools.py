"""How many connections there are, where they lead, and when they end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from meshsdk.core.model import Endpoint, Phase
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.pooling import Pooling
from tests.wire.callers import at, called, failing, get, within
from tests.wire.scripted import LONG, Peer, Server, after_request, answering, eventually, refusing_port, reply


async def test_ipv6_by_number_and_by_name(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering(), family=socket.AF_INET6)
    assert await called(ours, at(server), within(5)) == b"ok"
    assert server.connections == 1


async def test_each_address_of_a_name(ours: Any, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two lead nowhere; the third answers."""
    server = serve(answering())
    where = [("::1", server.port, 0, 0), ("127.0.0.2", server.port), ("127.0.0.1", server.port)]
    found = [
        (socket.AF_INET6 if len(to) == 4 else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", to)
        for to in where
    ]

    async def look_up(*args: Any, **options: Any) -> Any:
        return found

    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
    if hasattr(ours, "loop") and type(ours.loop).__module__.startswith("asyncio"):
        monkeypatch.setattr(ours.loop, "getaddrinfo", look_up)
        name = "payments.example"
    else:
        name = "payments.example" if not hasattr(ours, "loop") else "localhost"  # uvloop resolves without Python
    assert await called(ours, Endpoint("x", name, server.port), within(5)) == b"ok"
    assert server.connections == 1


@pytest.mark.parametrize("port", [0, -1, 65536, 70000])
async def test_a_number_that_is_no_port(ours: Any, port: int) -> None:
    failure = await failing(ours, Endpoint("x", "127.0.0.1", port), within(5))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "connect-failure")
    assert "ports are 1 to 65535" in failure.detail


@pytest.mark.parametrize(("limit", "opened"), [(0, 3), (2, 2)])
async def test_warming(ours: Any, serve: Callable[..., Server], limit: int, opened: int) -> None:
    server = serve(answering())
    bounds = within(5, max_connections=limit)
    await ours.warm(at(server), 3, bounds)
    await asyncio.to_thread(eventually, lambda: server.connections == opened)
    await asyncio.sleep(0.05)
    assert ours.kept == (opened, opened)
    await ours.warm(at(server), 3, bounds)
    await asyncio.gather(*(called(ours, at(server), bounds) for _ in range(2)))
    assert server.connections == opened


@pytest.mark.parametrize(("limit", "used", "idle", "opened"), [(0, 2, 0, 0), (0, 1, 1, 1), (2, 2, 0, 0), (2, 1, 0, 1)])
async def test_warming_counts_what_is_in_use_and_waits_for_none(
    ours: Any, serve: Callable[..., Server], *, limit: int, used: int, idle: int, opened: int
) -> None:
    count = used + idle + opened
    body = b"x" * LONG
    server = serve(after_request(lambda peer: (peer.send(reply(body)[:-1]), peer.stall())))
    bounds = within(5, max_connections=limit)
    await ours.warm(at(server), used + idle, bounds)
    await asyncio.to_thread(eventually, lambda: server.connections == used + idle)
    await asyncio.sleep(0.05)
    answers = [await ours.send(at(server), get(), bounds) for _ in range(used)]
    async with asyncio.timeout(2):
        await ours.warm(at(server), count, within(30, max_connections=limit))
    await asyncio.to_thread(eventually, lambda: server.connections == count)
    await asyncio.sleep(0.05)
    for answer in answers:
        await ours.let_go(answer)
    await asyncio.to_thread(eventually, lambda: server.open_connections == idle + opened)
    assert server.connections == count
    assert ours.kept == (idle + opened, idle + opened)


@pytest.mark.parametrize("there", [True, False])
async def test_warming_opens_no_more_at_a_time_than_sends_do(serve: Callable[..., Server], there: bool) -> None:
    under_way: list[int] = []

    def secure(endpoint: Endpoint, service: str) -> None:
        (found,) = engine._loops._loops.values()
        (pool,) = found[0]._pools.values()
        under_way.append(pool._dialing)

    server = serve(answering())
    engine = AsyncioEngine(secure=secure, pooling=Pooling(dials=4))
    with refusing_port() as nobody:
        try:
            await engine.warm(at(server if there else nobody), 10, within(5))
            sends = [engine.send(at(server), get(), within(5)) for _ in range(3 if there else 0)]
            await asyncio.gather(*sends)
            await asyncio.to_thread(eventually, lambda: len(under_way) == 10)
            await asyncio.sleep(0.05)
        finally:
            await engine.aclose()
    assert (len(under_way), max(under_way), server.connections) == (10, 4, 10 if there else 0)


async def test_retiring_with_some_idle_and_one_in_use(ours: Any, serve: Callable[..., Server]) -> None:
    body = b"x" * LONG

    def script(peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(reply(body)[:-1])
            peer.server.go_on.wait(5)
            peer.send(body[-1:])

    server = serve(script)
    await ours.warm(at(server), 2, within(5))
    await asyncio.to_thread(eventually, lambda: server.connections == 2)
    await asyncio.sleep(0.05)
    busy = await ours.send(at(server), get(), within(5))
    await ours.retire(at(server))
    await asyncio.to_thread(eventually, lambda: server.open_connections == 1)
    server.go_on.set()
    assert await ours.read(busy) == body
    await ours.let_go(busy)
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)


async def test_who_waits_in_a_retired_pool_is_given_none_of_its_connections(
    ours: Any, serve: Callable[..., Server]
) -> None:
    """They may be in clear text where that is not allowed any more, or of an identity that was replaced."""
    server = serve(_when_told)
    sends = [asyncio.create_task(called(ours, at(server), within(5, max_connections=1))) for _ in range(3)]
    await asyncio.to_thread(eventually, lambda: len(server.heads) == 1)
    await asyncio.sleep(0.05)  # the others wait
    await ours.retire(at(server))
    server.go_on.set()
    assert await asyncio.gather(*sends) == [b"ok"] * 3
    assert server.connections == 3


async def test_a_connection_that_was_begun_before_its_pool_was_retired_carries_nothing(
    serve: Callable[..., Server],
) -> None:
    carried: list[int] = []
    asked: list[Endpoint] = []

    def script(peer: Peer) -> None:
        number = peer.server.connections
        while peer.request() is not None:
            carried.append(number)
            peer.send(reply(b"ok"))

    def secure(endpoint: Endpoint, service: str) -> None:
        if not asked:
            pools = engine._loops.current()
            assert pools is not None
            pools.loop.call_soon(pools.retire, [endpoint])  # while it connects
        asked.append(endpoint)

    server, engine = serve(script), AsyncioEngine(secure=secure)
    try:
        await engine.send(at(server), get(), within(5))
    finally:
        await engine.aclose()
    assert (len(asked), server.connections, carried) == (2, 2, [2])


async def test_too_many_wait(ours_with: Any, serve: Callable[..., Server]) -> None:
    ours = ours_with(pooling=Pooling(max_pending=2))
    server = serve(after_request(Peer.stall))
    bounds = within(1.0, max_connections=1)
    sends = []
    for _ in range(3):
        sends.append(asyncio.create_task(failing(ours, at(server), bounds)))
        await asyncio.sleep(0.03)
    failure = await failing(ours, at(server), bounds)
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "connect-failure")
    assert "wait for a connection" in failure.detail
    await asyncio.gather(*sends)
    assert server.connections <= 3


@pytest.mark.parametrize(("limit", "kept"), [(0, 3), (5, 3), (1, 1)])
async def test_another_limit_keeps_the_connections_that_it_allows(
    ours: Any, serve: Callable[..., Server], limit: int, kept: int
) -> None:
    server = serve(answering())
    await ours.warm(at(server), 3, within(5, max_connections=3))
    await asyncio.to_thread(eventually, lambda: server.connections == 3)
    await asyncio.sleep(0.05)
    assert await called(ours, at(server), within(5, max_connections=limit)) == b"ok"
    await asyncio.to_thread(eventually, lambda: server.open_connections == kept)
    assert server.connections == 3


def _when_told(peer: Peer) -> None:
    while peer.request() is not None:
        peer.server.go_on.wait(5)
        peer.send(reply(b"ok"))


async def test_who_waits_may_open_one_where_more_are_allowed(ours: Any, serve: Callable[..., Server]) -> None:
    opened = 3 if hasattr(ours, "loop") else 2  # a thread waits at the gate it came to
    server = serve(_when_told)
    sends = [asyncio.create_task(called(ours, at(server), within(5, max_connections=1))) for _ in range(2)]
    await asyncio.to_thread(eventually, lambda: server.connections == 1)
    sends.append(asyncio.create_task(called(ours, at(server), within(5, max_connections=3))))
    await asyncio.to_thread(eventually, lambda: server.connections == opened)
    server.go_on.set()
    assert await asyncio.gather(*sends) == [b"ok"] * 3
    assert server.connections == opened


async def test_what_is_too_much_closes_when_it_is_free(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(_when_told)
    sends = [asyncio.create_task(called(ours, at(server), within(5))) for _ in range(3)]
    await asyncio.to_thread(eventually, lambda: server.connections == 3)
    server.go_on.set()
    last = asyncio.create_task(called(ours, at(server), within(5, max_connections=1)))
    assert await asyncio.gather(*sends, last) == [b"ok"] * 4
    await asyncio.to_thread(eventually, lambda: server.open_connections <= 1)

"""Whoever goes away, and at whatever byte: a call ends once, a request ends once, and nothing is held afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

import pytest

from meshsdk.core.cluster import Cluster
from tests.sidecar.proxy.ends import LONG, Client, Cut, End, Peer, read_body, until
from tests.sidecar.proxy.rig import Rig

T = TypeVar("T")

pytestmark = [
    pytest.mark.asyncio(loop_factories=["uvloop"]),
    pytest.mark.no_cover,  # the same lines at every byte; the tests beside this cover them once
]

ASKED = b"PUT /a HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\nX: y\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
REPLY = HEAD + b"5\r\nhello\r\n2\r\nyo\r\n0\r\nX: y\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nhelloyo"
LONG_SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG + b"x" * LONG
UPGRADE = b"GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nsome bytes"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nand bytes"


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str] | None:
    """All calls that were begun: to services, to hosts outside, or to the app beside the way in; None if compiled."""
    names: list[str] = []
    exchange = Cluster.exchange
    if not hasattr(exchange, "__code__"):
        return None  # what is compiled calls it directly

    def counting(cluster: Cluster, call):
        inside = cluster.snapshot.source == "fixed" and cluster.service == "web"
        names.append("beside" if inside else "out")
        return exchange(cluster, call)

    monkeypatch.setattr(Cluster, "exchange", counting)
    return names


def places(size: int, way: str, hard: bool) -> range:
    """After how many bytes of `size` an end leaves: all, and each third on the longest way, other ones if `hard`."""
    return range(int(hard), size + 1, 3) if way == "pair" else range(size + 1)


async def few_at_once(clients: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All of them, each within the seconds it gives itself: a hundred handshakes at once take a busy machine longer."""
    gate = asyncio.Semaphore(20)

    async def one(client: Coroutine[Any, Any, T]) -> T:
        async with gate:
            return await client

    return await asyncio.gather(*map(one, clients))


async def leave(end: End, hard: bool) -> None:
    if hard:
        end.reset()
    else:
        await end.close()


async def check(rig: Rig, begun: list[str] | None) -> None:
    await rig.settled()
    if begun is not None:
        assert len(rig.ended) == begun.count("out")
        assert rig.started == begun.count("beside")
    for pools in (rig.plane.pools, rig.plane.app_pools):
        for pool in pools._pools.values():
            assert set(pool._idle) == pool._open
            assert all(connection.alive for connection in pool._idle)


async def _dripping(peer: Peer) -> None:
    """Answer a byte at a time, each in a packet of its own as far as that can be had."""
    while True:
        request = await peer.request()
        for value in SWITCH if request.get(b"upgrade") else REPLY:
            await peer.send(bytes([value]))
            await asyncio.sleep(0)
        if request.get(b"upgrade"):
            await peer.rest()
            return


@pytest.mark.parametrize("asked", [ASKED, UPGRADE], ids=["chunks", "upgrade"])
@pytest.mark.parametrize("hard", [False, True], ids=["fin", "rst"])
async def test_client_leaves_at_every_byte_of_its_request(rig, way, begun, hard: bool, asked: bytes) -> None:
    rig.app.script = _dripping

    async def one(size: int) -> None:
        client = await rig.client(way)
        await client.send(asked[:size])
        await asyncio.sleep(0.01 * (size % 3))
        await leave(client, hard)

    await few_at_once(map(one, places(len(asked), way, hard)))
    await check(rig, begun)
    assert rig.plane.in_flight == 0


@pytest.mark.parametrize("asked", [ASKED, UPGRADE], ids=["chunks", "upgrade"])
@pytest.mark.parametrize("hard", [False, True], ids=["fin", "rst"])
async def test_client_leaves_at_every_byte_of_its_reply(rig, way, begun, hard: bool, asked: bytes) -> None:
    rig.app.script = _dripping
    size = len(REPLY) if asked is ASKED else len(SWITCH)

    async def one(size: int) -> None:
        client = await rig.client(way)
        await client.send(asked)
        with contextlib.suppress(asyncio.IncompleteReadError):
            await asyncio.wait_for(client.reader.readexactly(size), 5)
        await leave(client, hard)

    await few_at_once(map(one, places(size, way, hard)))
    await check(rig, begun)
    await until(lambda: len(rig.app.peers) == _kept_to_the_app(rig))


def _kept_to_the_app(rig: Rig) -> int:
    """Connections to the app; those from the way out to the way in are none."""
    pools = [*rig.plane.pools._pools.values(), *rig.plane.app_pools._pools.values()]
    return sum(len(pool._open) for pool in pools if pool.endpoint.port == rig.app.port)


async def _some_end(client: Client) -> int:
    """Each caller is given an end: an answer, or that there will be none; which status, 0 for a cut."""
    try:
        return (await asyncio.wait_for(client.reply(), 5)).status
    except (Cut, ConnectionError):
        return 0
    finally:
        client.reset()


@pytest.mark.parametrize("hard", [False, True], ids=["fin", "rst"])
async def test_app_leaves_at_every_byte_of_the_request(rig, way, begun, hard: bool) -> None:
    sizes = itertools.cycle(range(len(ASKED) - 10))

    async def script(peer: Peer) -> None:
        left = next(sizes)
        while left > 0 and (data := await peer.reader.read(left)):
            left -= len(data)
        await leave(peer, hard)

    rig.app.script = script

    async def one() -> int:
        return await _some_end(await _asking(rig, way))

    found = await few_at_once(one() for _ in range(100))
    assert set(found) <= {503, 504}
    await check(rig, begun)


async def _asking(rig: Rig, way: str) -> Client:
    client = await rig.client(way)
    await client.send(ASKED)
    return client


def cuts(reply: bytes) -> list[int]:
    """After how many bytes of it the app leaves: after each, but for most of a long body."""
    places = [*range(len(reply) + 1)]
    return places if len(reply) < LONG else places[:50] + places[-3:]


# What clients see; nobody hears of a short reply that comes in part.
ENDS = {REPLY: {200, 503, 0}, SIZED: {200, 503}, LONG_SIZED: {200, 503, 0}, SWITCH: {502, 503}}


@pytest.mark.parametrize("reply", ENDS, ids=["chunks", "sized", "long", "unasked switch"])
@pytest.mark.parametrize("hard", [False, True], ids=["fin", "rst"])
async def test_app_leaves_at_every_byte_of_the_reply(rig, way, begun, hard: bool, reply: bytes) -> None:
    sizes = itertools.cycle(cuts(reply))

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply[: next(sizes)])
        await asyncio.sleep(0.001)
        await leave(peer, hard)

    rig.app.script = script

    async def one() -> int:
        return await _some_end(await _asking(rig, way))

    found = await few_at_once(one() for _ in range(2 * len(cuts(reply))))
    assert set(found) <= ENDS[reply]
    if reply is not SWITCH:
        assert set(found) == ENDS[reply]
    await check(rig, begun)


async def test_closing_the_plane_ends_whatever_is_under_way(rig, begun) -> None:
    async def script(peer: Peer) -> None:
        head = await peer.head()
        if head.target == b"/head":
            await peer.rest()
        await read_body(peer.reader, head, reply=False)
        if head.target == b"/body":
            await peer.send(REPLY[:-20])
        elif head.get(b"upgrade"):
            await peer.send(SWITCH)
        await peer.rest()

    rig.app.script = script
    clients = []
    shapes = [
        ASKED, ASKED[:-15], UPGRADE,
        b"GET /head HTTP/1.1\r\nHost: app\r\n\r\n", b"GET /body HTTP/1.1\r\nHost: app\r\n\r\n",
        b"GET / HT", b"", b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % rig.app.port,
    ]  # fmt: skip
    for way, shape in itertools.product(("out", "in"), shapes):
        client = await rig.client(way)
        await client.send(shape)
        clients.append(client)
    await until(lambda: rig.plane.in_flight == 11)
    await rig.plane.close()
    assert all(await asyncio.gather(*(_gone(client) for client in clients)))
    await check(rig, begun)


async def _gone(client: Client) -> bool:
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(client.rest(), 5)
    return True


async def test_service_that_is_looked_up_for_a_client_who_leaves(rig, begun) -> None:
    known = asyncio.Event()

    async def acluster(service: str):
        await known.wait()
        return rig.cluster

    rig.directory.peek, rig.directory.acluster = lambda _: None, acluster
    gone, waiting = await rig.client(), await rig.client()
    body = b"x" * 600_000
    await gone.send(ASKED)
    waiting.write(b"PUT /b HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n" % len(body), body)
    await until(lambda: rig.plane.in_flight == 2)
    await gone.close()
    await until(lambda: rig.plane.in_flight == 1)
    known.set()
    assert (await waiting.reply()).body == b"PUT /b " + body
    await waiting.close()
    await check(rig, begun)
    assert len(rig.app.requests) == 1

"""A short reply is waited for until it is whole: what breaks off before is tried again, and goes out in one piece."""

from __future__ import annotations

import asyncio

import pytest

from meshsdk.core.events import AttemptEnded
from tests.sidecar.proxy.ends import LONG, Peer, Script, ok, read_body, read_head, until
from tests.sidecar.proxy.rig import plan

GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nme"
HELLO = ok(b"hello")
HEAD = HELLO[:-5]


def breaking(how: str, first: bytes = HEAD) -> Script:
    """Break off the first reply behind `first`; answer those after."""
    left = [1]

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            if not left[0]:
                await peer.send(HELLO)
                continue
            left[0] = 0
            await peer.send(first)
            if how == "stalls":
                await peer.reader.read()
            elif how == "resets":
                await asyncio.sleep(0.02)  # so that the head is read before it
                peer.reset()
            return

    return script


@pytest.mark.parametrize("first", [HEAD, HEAD + b"hel"], ids=["after the head", "in the body"])
@pytest.mark.parametrize("how", ["closes", "resets", "stalls"])
async def test_what_breaks_off_is_asked_for_again(make, how: str, first: bytes) -> None:
    rig = await make(breaking(how, first), policy=plan(timeouts={"idle": 0.1}))
    client = await rig.client()
    reply = await client.ask(GET)
    assert (reply.status, reply.body) == (200, b"hello")
    kind = "timeout" if how == "stalls" else "reset"
    tries = [(event.outcome, event.decision) for event in rig.events if isinstance(event, AttemptEnded)]
    assert tries == [(kind, f"retry:{kind}")]
    assert (rig.ended[0].attempts, rig.ended[0].status, rig.ended[0].flag) == (2, 200, "")
    assert (await client.ask(GET)).body == b"hello"
    await client.close()
    await rig.settled()


async def test_nothing_of_the_broken_one_is_in_the_next(rig) -> None:
    broken = b"HTTP/1.1 200 OK\r\nX-First: 1\r\nContent-Length: 5\r\n\r\nWRONG"[:-1]
    rig.app.script = breaking("closes", broken)
    client = await rig.client()
    reply = await client.ask(GET)
    assert (reply.get(b"x-first"), reply.body) == (None, b"hello")


async def test_post_is_not_asked_twice(rig, way) -> None:
    """Its client is told in a whole reply, and may ask on."""
    rig.app.script = breaking("closes", HEAD + b"hel")
    client = await rig.client(way)
    reply = await client.ask(POST)
    assert (reply.status, reply.get(b"x-mesh-flag"), reply.get(b"connection")) == (503, b"UC", None)
    assert b"in the middle of the body" in reply.body
    assert len(rig.app.requests) == 1
    assert (await client.ask(POST)).body == b"hello"
    await client.close()
    await rig.settled()


async def test_callers_deadline_bounds_the_wait(rig, way) -> None:
    rig.app.script = breaking("stalls")
    client = await rig.client(way)
    begin = asyncio.get_running_loop().time()
    reply = await client.ask(b"GET / HTTP/1.1\r\nHost: app\r\nx-envoy-expected-rq-timeout-ms: 100\r\n\r\n")
    assert (reply.status, reply.get(b"x-mesh-flag")) == (504, b"UT")
    assert 0.09 <= asyncio.get_running_loop().time() - begin < 1.0
    await client.close()
    await rig.settled()
    await until(lambda: not rig.app.peers)


async def test_client_that_leaves_meanwhile(rig, way) -> None:
    rig.app.script = breaking("stalls")
    client = await rig.client(way)
    await client.send(GET)
    await until(lambda: bool(rig.app.requests))
    await asyncio.sleep(0.02)  # for the head to be here
    client.reset()
    await rig.settled()
    await until(lambda: not rig.app.peers)
    assert [end.flag for end in rig.ended] == ["DC"] * (way != "in")


# --- when the client hears of it ----------------------------------------------------------------------


def in_two(first: bytes, second: bytes, go_on: asyncio.Event) -> Script:
    """Answer with `first`, and with `second` once the test says so."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(first)
        await go_on.wait()
        await peer.send(second)

    return script


@pytest.mark.parametrize("size", [5, LONG - 1])
async def test_it_goes_out_in_one_piece(rig, way, size: int) -> None:
    body, go_on = b"x" * size, asyncio.Event()
    rig.app.script = in_two(ok(body)[:-size], body, go_on)
    client = await rig.client(way)
    await client.send(GET)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.read(1), 0.1)
    go_on.set()
    piece = await client.reader.read(2**18)
    assert piece.startswith(b"HTTP/1.1 200 ")
    assert piece.endswith(b"\r\n\r\n" + body)


HEADS = {
    "too long": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONG,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "without a length": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("how", HEADS)
async def test_any_other_goes_out_at_its_head(rig, way, how: str) -> None:
    go_on = asyncio.Event()
    rig.app.script = in_two(HEADS[how], b"", go_on)
    client = await rig.client(way)
    await client.send(GET)
    assert (await asyncio.wait_for(read_head(client.reader), 5)).status == 200
    client.reset()
    await rig.settled()


async def test_client_that_waits_for_the_head_with_the_rest_of_its_request(rig, way) -> None:
    """Who held the head back until the body is here would have everybody wait for everybody."""

    async def script(peer: Peer) -> None:
        await peer.head()
        assert await peer.reader.readexactly(5) == b"first"
        await peer.send(HEAD)
        assert await peer.reader.readexactly(6) == b"second"
        await peer.send(b"hello")
        await peer.request()
        await peer.send(ok(b"next"))

    rig.app.script = script
    client = await rig.client(way)
    await client.send(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 11\r\n\r\nfirst")
    head = await asyncio.wait_for(read_head(client.reader), 5)
    assert head.status == 200
    await client.send(b"second")
    assert (await read_body(client.reader, head, reply=True)).body == b"hello"
    assert (await client.ask(GET)).body == b"next"
    await client.close()
    await rig.settled()

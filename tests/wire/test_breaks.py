"""How far a send gets and how it fails, wherever a server can let go; all colours, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from meshsdk.core.model import Endpoint, Phase, TransportFailure
from tests.wire.callers import at, failing, get, within
from tests.wire.scripted import (
    LONG,
    Peer,
    Script,
    Server,
    after_request,
    answering,
    deaf_port,
    refusing_port,
    reply,
)

GOOD = reply(b"hello")

HEAD_HALF = b"HTTP/1.1 200 OK\r\ncontent-le"
BODY_HALF = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\nhalf" % LONG


@contextlib.asynccontextmanager
async def at_most(bound: float, deadline: float) -> AsyncIterator[None]:
    """What is done takes less than `bound` seconds, and as much longer as the machine itself is late.

    That is told by two plain waits of `deadline` seconds, one on this loop and one in a thread: who is late because
    others compute is so beside everything that is awaited here.
    """
    began = time.monotonic()
    plain = asyncio.gather(asyncio.sleep(deadline), asyncio.to_thread(threading.Event().wait, deadline))
    yield
    took = time.monotonic() - began
    await plain
    late = time.monotonic() - began - deadline
    assert took < bound + late, "a deadline is absolute"


BREAKS: dict[str, tuple[Script, Phase, str, str]] = {
    "closes after request": (after_request(lambda peer: None), Phase.WRITTEN, "reset", "closed the connection before"),
    "resets after request": (after_request(Peer.reset), Phase.WRITTEN, "reset", "connection broken"),
    "closes mid head": (
        after_request(lambda peer: peer.send(HEAD_HALF)),
        Phase.REPLY_STARTED,
        "reset",
        "in the middle of the head",
    ),
    "sends garbage": (
        after_request(lambda peer: peer.send(b"\x16\x03\x01nonsense\r\n\r\n")),
        Phase.REPLY_STARTED,
        "protocol",
        "",
    ),
    "stalls after request": (after_request(Peer.stall), Phase.WRITTEN, "timeout", "no reply in time"),
    "stalls mid head": (
        after_request(lambda peer: (peer.send(HEAD_HALF), peer.stall())),
        Phase.REPLY_STARTED,
        "timeout",
        "head was not complete",
    ),
    "drips the head": (
        after_request(lambda peer: peer.drip(GOOD, 0.03)),
        Phase.REPLY_STARTED,
        "timeout",
        "head was not complete",
    ),
}


@pytest.mark.parametrize("how", BREAKS)
async def test_before_the_head(wire: Any, serve: Callable[..., Server], how: str) -> None:
    script, phase, kind, detail = BREAKS[how]
    async with at_most(0.6, deadline=0.25):
        failure = await failing(wire, at(serve(script)), within(0.25))
    assert (failure.phase, failure.kind) == (phase, kind), failure
    assert detail in failure.detail


async def test_a_reset_at_accept_is_seen_when_it_arrives(wire: Any, serve: Callable[..., Server]) -> None:
    """While connecting, before anything is written, or when the request is out: a race that nobody can decide.

    Each has words of its own, so that none is told for another; and it is tried once.
    """
    server = serve(Peer.reset)
    failure = await failing(wire, at(server), within(5))
    if failure.phase == Phase.NOT_CONNECTED:
        assert failure.kind == "connect-failure"
    else:
        assert failure.phase in {Phase.NOT_WRITTEN, Phase.WRITTEN}, failure
        assert failure.kind == "reset"
        assert failure.detail.endswith("before any reply")
    assert server.connections == 1


async def test_nobody_listens(wire: Any) -> None:
    with refusing_port() as port:
        failure = await failing(wire, at(port), within(5))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "connect-failure")
    assert isinstance(failure.cause, OSError)
    assert "refused" in failure.detail.lower()


async def test_connecting_has_a_bound_of_its_own(wire: Any) -> None:
    with deaf_port() as port:
        failure = await failing(wire, at(port), within(5, connect=0.1))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "connect-failure")
    assert "within 0.1 s" in failure.detail
    assert isinstance(failure.cause, TimeoutError)


async def test_connecting_until_the_deadline_is_a_timeout(wire: Any) -> None:
    with deaf_port() as port:
        failure = await failing(wire, at(port), within(0.1, connect=5))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "timeout")


async def test_a_deadline_in_the_past_sends_nothing(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering())
    failure = await failing(wire, at(server), within(-1))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "timeout")
    assert server.connections == 0


@pytest.mark.parametrize(("address", "port"), [("no such host", 1), ("a" * 64, 1), ("127.0.0.1", 70000), ("é" * 70, 1)])
async def test_an_address_that_is_none(wire: Any, address: str, port: int) -> None:
    failure = await failing(wire, Endpoint("x", address, port), within(5))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "connect-failure")


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
BODY_BREAKS: dict[str, tuple[Script, str, str]] = {
    "closes": (after_request(lambda peer: peer.send(BODY_HALF)), "reset", "closed the connection in the middle"),
    "resets": (
        after_request(lambda peer: (peer.send(BODY_HALF), peer.stopped.wait(0.1), peer.reset())),
        "reset",
        "in the middle of the body",
    ),
    "stalls": (after_request(lambda peer: (peer.send(BODY_HALF), peer.stall())), "timeout", "went silent"),
    "drips": (after_request(lambda peer: peer.drip(b"", 0) or _drip_body(peer)), "timeout", "not complete in time"),
    "breaks a chunk": (
        after_request(
            lambda peer: _send_in_two(peer, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"zz\r\n")
        ),
        "protocol",
        "",
    ),
}


def _send_in_two(peer: Peer, first: bytes, second: bytes) -> None:
    peer.send(first)
    peer.stopped.wait(0.1)
    peer.send(second)


def _drip_body(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LONG)
    peer.drip(b"x" * LONG, 0.02)


@pytest.mark.parametrize("how", BODY_BREAKS)
async def test_inside_the_body(wire: Any, serve: Callable[..., Server], how: str) -> None:
    script, kind, detail = BODY_BREAKS[how]
    answer = await wire.send(at(serve(script)), get(), within(0.5, idle=0.2))
    async with at_most(0.9, deadline=0.5):
        with pytest.raises(TransportFailure) as caught:
            await wire.read(answer)
    assert (caught.value.failure.phase, caught.value.failure.kind) == (Phase.REPLY_STARTED, kind)
    assert detail in caught.value.failure.detail
    await wire.let_go(answer)


async def test_the_users_own_read_timeout_is_kept(wire: Any, serve: Callable[..., Server]) -> None:
    failure = await failing(wire, at(serve(after_request(Peer.stall))), within(5, read=0.1))
    assert failure.kind == "timeout"


@pytest.mark.parametrize("size", [5, LONG])
async def test_a_body_may_take_longer_than_the_head(wire: Any, serve: Callable[..., Server], size: int) -> None:
    body = b"x" * size

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(reply(body)[:-3])
        peer.stopped.wait(0.3)
        peer.send(body[-3:])

    answer = await wire.send(at(serve(script)), get(), within(0.1, body_deadline=math.inf))
    assert await wire.read(answer) == body
    await wire.let_go(answer)

"""A reply of a known length up to 16 KiB is answered once all of it is here; any other at its head."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from meshsdk.core.model import Phase
from tests.wire.callers import OURS, Pieces, at, called, failing, get, within
from tests.wire.scripted import LONG, Peer, Script, Server, answering, eventually, reply

SHORT = b"x" * (LONG - 1)


@pytest.fixture(params=["asyncio", "uvloop"])
async def awaiting(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """The engine of asyncio, on each loop."""
    caller, engine = OURS[request.param]
    awaiting = caller(engine)
    yield awaiting
    await awaiting.end()


def split(answer: bytes, body: int) -> tuple[bytes, bytes]:
    """The head, and the body with it but for its last `body` bytes; and these."""
    return answer[:-body], answer[-body:]


def in_two(first: bytes, second: bytes) -> Script:
    """Answer every request in two pieces; the second goes out once the client's system has the first."""

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(first)
            peer.arrived()
            peer.stopped.wait(0.05)
            peer.send(second)

    return script


def halting(first: bytes) -> Script:
    """Answer with `first`, and say nothing more until the test lets go."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(first)
        peer.stall()

    return script


@pytest.mark.parametrize("body", [b"x", b"hello", SHORT], ids=len)
@pytest.mark.parametrize("last", ["all of the body", "its last byte"])
async def test_send_returns_with_all_of_it(ours: Any, serve: Callable[..., Server], body: bytes, last: str) -> None:
    server = serve(in_two(*split(reply(body), 1 if last == "its last byte" else len(body))))
    for _ in range(2):
        answer = await ours.send(at(server), get(), within(5, max_connections=1))
        assert answer.complete
        assert answer.whole() == body
        assert ours.kept == (1, 1), "the connection is free before the reply is read"
        assert await ours.read(answer) == body
        await ours.let_go(answer)
    assert server.connections == 1


@pytest.mark.parametrize("status", [201, 404, 503])
async def test_whatever_its_status(ours: Any, serve: Callable[..., Server], status: int) -> None:
    server = serve(in_two(*split(reply(b"hello", status), 5)))
    answer = await ours.send(at(server), get(), within(5))
    assert (answer.status, answer.whole()) == (status, b"hello")
    await ours.let_go(answer)


async def test_behind_an_interim_reply(ours: Any, serve: Callable[..., Server]) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\ncontent-length: 20\r\n\r\n"
    first, second = split(reply(b"hello"), 5)
    answer = await ours.send(at(serve(in_two(hints + first, second))), get(), within(5))
    assert answer.whole() == b"hello"
    await ours.let_go(answer)


async def test_a_request_that_comes_in_pieces(ours: Any, serve: Callable[..., Server]) -> None:
    """Once it is sent nothing of it can wait for the head."""
    server = serve(in_two(*split(reply(b"hello"), 5)))
    answer = await ours.send(at(server), get(Pieces(b"one", b"two"), "POST"), within(5))
    assert answer.whole() == b"hello"
    assert server.bodies == [b"onetwo"]
    await ours.let_go(answer)


# --- that breaks off ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [0, 2], ids=["after the head", "in the body"])
@pytest.mark.parametrize("how", ["closes", "resets"])
async def test_broken_off(ours: Any, serve: Callable[..., Server], sent: int, how: str) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(split(reply(b"hello"), 5 - sent)[0])
        peer.arrived()
        if how == "resets":
            peer.reset()

    server = serve(script)
    failure = await failing(ours, at(server), within(5, max_connections=1))
    assert (failure.phase, failure.kind) == (Phase.REPLY_STARTED, "reset")
    assert "in the middle of the body" in failure.detail
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    assert ours.kept == (0, 0)
    server.script = answering()
    assert await called(ours, at(server), within(5, max_connections=1)) == b"ok", "its place is free again"


@pytest.mark.parametrize(
    ("bound", "detail"),
    [({"idle": 0.15}, "went silent"), ({"read": 0.15}, "went silent"), ({}, "not complete in time")],
)
async def test_silence_is_bounded(
    ours: Any, serve: Callable[..., Server], bound: dict[str, float], detail: str
) -> None:
    """By what bounds any body; the time for the head is not the one that counts any more."""
    server = serve(halting(split(reply(b"hello"), 5)[0]))
    began = time.monotonic()
    until = began + (5 if bound else 0.15)
    failure = await failing(ours, at(server), within(0.05, body_deadline=until, **bound))
    assert 0.14 < time.monotonic() - began < 0.45
    assert (failure.phase, failure.kind) == (Phase.REPLY_STARTED, "timeout")
    assert detail in failure.detail
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    assert ours.kept == (0, 0)


async def test_dripping_is_bounded(ours: Any, serve: Callable[..., Server]) -> None:
    first, second = split(reply(SHORT), len(SHORT))

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(first)
        peer.drip(second, 0.03)

    server = serve(script)
    began = time.monotonic()
    failure = await failing(ours, at(server), within(0.3, idle=0.2))
    assert 0.29 < time.monotonic() - began < 0.6
    assert (failure.phase, failure.kind) == (Phase.REPLY_STARTED, "timeout")
    assert "not complete in time" in failure.detail


async def test_cancelled_while_it_comes(awaiting: Any, serve: Callable[..., Server]) -> None:
    """The connection does not outlive the call that nobody waits for."""
    server = serve(halting(split(reply(b"hello"), 5)[0]))
    sending = asyncio.create_task(awaiting.send(at(server), get(), within(5, max_connections=1)))
    await asyncio.to_thread(eventually, lambda: bool(server.heads))
    await asyncio.sleep(0.05)  # for the head to be here
    assert not sending.done()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    assert awaiting.kept == (0, 0)


# --- what is not waited for ---------------------------------------------------------------------------

HEADS = {
    "too long": b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LONG,
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    "without a length": b"HTTP/1.1 200 OK\r\n\r\n",
    "1.0": b"HTTP/1.0 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("how", HEADS)
async def test_answered_at_the_head(ours: Any, serve: Callable[..., Server], how: str) -> None:
    """With no bound on the body: who waited for it would wait for ever."""
    server = serve(halting(HEADS[how]))
    answer = await asyncio.wait_for(ours.send(at(server), get(), within(5, body_deadline=float("inf"))), 5)
    assert (answer.status, answer.complete, answer.whole()) == (200, False, None)
    await ours.let_go(answer)
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    assert ours.kept == (0, 0)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("HEAD", 404), ("GET", 204), ("GET", 304), ("PUT", 304)])
async def test_a_length_of_nothing(ours: Any, serve: Callable[..., Server], method: str, status: int) -> None:
    """The length of what is not sent, as HEAD and 304 tell it (RFC 9110, 8.6); in 204 it is a mistake of servers."""
    server = serve(answering(b"HTTP/1.1 %d Whatever\r\ncontent-length: 100\r\n\r\n" % status))
    for _ in range(2):
        answer = await asyncio.wait_for(ours.send(at(server), get(None, method), within(5)), 5)
        assert (answer.status, answer.whole()) == (status, b"")
        await ours.let_go(answer)
    assert server.connections == 1


async def test_an_empty_one(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering(reply(b"")))
    for _ in range(2):
        answer = await ours.send(at(server), get(), within(5))
        assert answer.whole() == b""
        await ours.let_go(answer)
    assert server.connections == 1


async def test_a_request_that_waits_for_the_head(awaiting: Any, serve: Callable[..., Server]) -> None:
    """The rest of a request may depend on the reply's head: who held that back would wait for himself."""

    def script(peer: Peer) -> None:
        first, second = split(reply(b"hello"), 5)
        seen = peer.sock.recv(65536)
        peer.send(first)
        while b"0\r\n\r\n" not in seen[-10:]:
            seen += peer.sock.recv(65536)
        peer.send(second)
        peer.stall()

    class Conversation:
        def __init__(self) -> None:
            self.head = asyncio.Event()

        async def __aiter__(self) -> Any:
            yield b"question"
            await self.head.wait()
            yield b"thanks"

    async def converse() -> bytes:
        said = Conversation()
        answer = await awaiting.engine.send(at(server), get(said, "POST"), within(5))
        said.head.set()
        body = b"".join([piece async for piece in answer])
        await answer.aclose()
        return body

    server = serve(script)
    assert await awaiting.run(converse) == b"hello"

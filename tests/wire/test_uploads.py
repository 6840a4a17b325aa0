"""Request bodies that go out in pieces: framing, early answers, `Expect: 100-continue`, bodies that fail."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from meshsdk.core.model import TransportFailure
from meshsdk.wire.engine import InvalidRequest
from tests.wire.callers import Awaiting, Pieces, at, called, get, within
from tests.wire.scripted import Peer, Server, answering, eventually, reply

CHUNKED = (b"Transfer-Encoding", b"chunked")
EXPECT = (b"Expect", b"100-continue")
MEGABYTE = b"x" * 1024 * 1024


@pytest.mark.parametrize("fields", [(), (CHUNKED,), ((b"Content-Length", b"10"),)])
async def test_pieces(ours: Any, serve: Callable[..., Server], fields: Any) -> None:
    server = serve(answering())
    for _ in range(2):
        request = get(Pieces(b"one", b"", b"two", b"four"), "POST", *fields)
        assert await called(ours, at(server), within(5), request) == b"ok"
    assert server.bodies == [b"onetwofour"] * 2
    assert server.connections == 1
    assert (b"content-length" in server.heads[0].lower()) == ((fields and fields[0] != CHUNKED) or False)


@pytest.mark.parametrize("body", [b"charge", b""])
@pytest.mark.parametrize("fields", [(CHUNKED,), (CHUNKED, EXPECT)], ids=["at once", "after 100"])
async def test_a_known_body_that_is_to_go_in_chunks(
    ours: Any, serve: Callable[..., Server], body: bytes, fields: Any
) -> None:
    """Who says `Transfer-Encoding: chunked` gets chunks, and each body ends once."""

    def script(peer: Peer) -> None:
        while peer.sock.recv(65536, socket.MSG_PEEK):
            if EXPECT in fields:
                peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            peer.request()
            peer.send(reply())

    server = serve(script)
    for _ in range(2):
        assert await called(ours, at(server), within(5), get(body, "POST", *fields)) == b"ok"
    assert server.bodies == [body] * 2
    assert server.connections == 1


async def test_no_pieces(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering())
    assert await called(ours, at(server), within(5), get(Pieces(), "POST")) == b"ok"
    assert server.bodies == [b""]


@pytest.mark.parametrize(("length", "words"), [(b"3", "has more bytes"), (b"99", "has 6 bytes")])
async def test_a_length_that_is_wrong(ours: Any, serve: Callable[..., Server], length: bytes, words: str) -> None:
    server = serve(answering())
    request = get(Pieces(b"one", b"two"), "POST", (b"Content-Length", length))
    with pytest.raises(InvalidRequest, match=words):
        await called(ours, at(server), within(5), request)
    assert server.heads == [] or len(server.bodies[0]) == int(length)
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)


@pytest.mark.parametrize("error", [OSError("the file is gone"), asyncio.CancelledError(), ValueError("no")], ids=repr)
async def test_a_body_that_raises(ours: Any, serve: Callable[..., Server], error: BaseException) -> None:
    server = serve(answering())
    with pytest.raises(type(error)):
        await called(ours, at(server), within(2), get(Pieces(b"one", then=error), "POST", CHUNKED))
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    assert ours.kept == (0, 0)


@pytest.mark.parametrize("request_", [get(b"x", "GE T"), get(None, "GET", (b"a b", b"c")), get(target=b"/a b")])
async def test_what_cannot_be_sent_opens_no_connection(ours: Any, serve: Callable[..., Server], request_: Any) -> None:
    server = serve(answering())
    with pytest.raises(InvalidRequest):
        await ours.send(at(server), request_, within(5))
    await asyncio.sleep(0.02)
    assert server.connections == 0


# --- answers before the end ---------------------------------------------------------------------------


@pytest.mark.parametrize("body", [MEGABYTE * 20, Pieces(*[MEGABYTE] * 20)], ids=["known", "pieces"])
async def test_a_refusal_ends_the_upload(ours: Any, serve: Callable[..., Server], body: Any) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(65536)
        peer.send(reply(b"too large", 413))
        peer.stopped.wait(0.2)
        peer.stall()

    server = serve(script)
    assert await called(ours, at(server), within(5), get(body, "POST")) == b"too large"
    if isinstance(body, bytes):  # which asyncio was given whole: it goes out, and the connection may be kept
        opened, idle = ours.kept
        assert opened == idle
        await ours.close()
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)


@pytest.mark.parametrize("whole", [True, False], ids=["complete", "head only"])
async def test_an_acceptance_does_not_end_the_upload(ours: Any, serve: Callable[..., Server], whole: bool) -> None:
    """What a client was asked to send is sent, although the server has answered (RFC 9110, 7.5)."""

    def script(peer: Peer) -> None:
        rest = b""
        for _ in range(2):
            seen = rest or peer.sock.recv(65536)
            peer.send(reply() if whole else reply()[:-1])
            while (end := seen.find(b"x\r\n0\r\n\r\n", max(len(seen) - 70_000, 0))) < 0:
                seen += peer.sock.recv(65536)
            peer.server.bodies.append(seen[: end + 1])
            rest = seen[end + 8 :]
            if not whole:
                peer.send(reply()[-1:])
        peer.stall()

    server = serve(script)
    for _ in range(2):
        assert await called(ours, at(server), within(10), get(Pieces(*[MEGABYTE] * 5), "POST")) == b"ok"
    await asyncio.to_thread(eventually, lambda: len(server.bodies) == 2)
    assert [body.count(b"x") for body in server.bodies] == [5 * len(MEGABYTE)] * 2
    assert server.connections == 1, "the connection is as good as any"


async def test_an_answer_and_a_close_before_the_end(ours: Any, serve: Callable[..., Server]) -> None:
    """A server that answers, says `close` and reads no more is heard, or its reset is told: never a hang."""

    def script(peer: Peer) -> None:
        peer.sock.recv(65536)
        peer.send(reply(b"no", 413, b"connection: close\r\n"))
        peer.arrived()

    server = serve(script)
    told: list[str] = []
    for _ in range(10):
        try:
            assert await called(ours, at(server), within(3), get(Pieces(*[MEGABYTE] * 20), "POST")) == b"no"
        except TransportFailure as error:
            told.append(error.failure.kind)
    assert set(told) <= {"reset"}
    assert ours.kept == (0, 0)


async def test_duplex(serve: Callable[..., Server]) -> None:
    """Each piece is sent after the last one's echo was read (asyncio; a thread sends before it reads)."""

    def script(peer: Peer) -> None:
        begun = peer.sock.recv(65536).partition(b"\r\n\r\n")[2]
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + begun)
        while not (data := peer.sock.recv(65536)).startswith(b"0\r\n"):
            peer.send(data)
        peer.send(data)
        peer.stall()

    heard: asyncio.Queue[bytes] = asyncio.Queue()

    class Talk:
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"0"
            for _ in range(5):
                yield b"%d" % (int(await heard.get()) + 1)

    ours = Awaiting()
    answer = await ours.send(at(serve(script)), get(Talk(), "POST"), within(5))
    said = []
    async for piece in answer:
        said.append(piece)
        heard.put_nowait(piece)
    assert said == [b"0", b"1", b"2", b"3", b"4", b"5"]
    await answer.aclose()
    assert ours.kept == (1, 1)
    await ours.end()


# --- Expect -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"charge", Pieces(b"char", b"ge")], ids=["known", "pieces"])
async def test_100_continue(ours: Any, serve: Callable[..., Server], body: Any) -> None:
    def script(peer: Peer) -> None:
        for _ in range(2):
            head = peer.sock.recv(65536)
            assert head.endswith(b"\r\n\r\n"), "the body waits"
            peer.stopped.wait(0.05)
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = peer.sock.recv(65536)
            while b"ge" not in body:
                body += peer.sock.recv(65536)
            peer.server.bodies.append(body)
            peer.stopped.wait(0.02)
            peer.send(reply())
        peer.stall()

    server = serve(script)
    for _ in range(2):
        request = get(body, "POST", EXPECT, (b"Content-Length", b"6"))
        assert await called(ours, at(server), within(5), request) == b"ok"
    assert server.bodies == [b"charge"] * 2
    assert server.connections == 1


@pytest.mark.parametrize("status", [417, 401, 200])
async def test_a_reply_in_place_of_100(ours: Any, serve: Callable[..., Server], status: int) -> None:
    def script(peer: Peer) -> None:
        peer.server.bodies.append(peer.sock.recv(65536).partition(b"\r\n\r\n")[2])
        peer.send(reply(b"no", status))
        peer.server.bodies.append(peer.sock.recv(65536))

    server = serve(script)
    body = Pieces(b"charge")
    began = time.monotonic()
    answer = await ours.send(at(server), get(body, "POST", EXPECT), within(5))
    assert answer.status == status
    assert await ours.read(answer) == b"no"
    await ours.let_go(answer)
    assert time.monotonic() - began < 3, "the end of the body that was not sent was waited for"
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    assert server.bodies == [b"", b""], "a request whose body was not sent ends with its connection"
    assert body.taken == 0


async def test_nothing_in_place_of_100(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering())
    began = time.monotonic()
    request = get(b"charge", "POST", EXPECT)
    assert await called(ours, at(server), within(5), request) == b"ok"
    assert 0.95 < time.monotonic() - began < 1.5
    assert server.bodies == [b"charge"]

"""Reply bodies as they come: framings, heads before the head, back-pressure, halves that nobody wants, upgrades."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.wire.callers import at, called, get, within
from tests.wire.scripted import LONG, Peer, Script, Server, after_request, answering, eventually, reply

HUGE = 64 * 1024 * 1024
CLOSES = {
    "connection: close": b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
    "1.0": b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "until closed": b"HTTP/1.1 200 OK\r\n\r\nok",
    "bytes beyond": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
}
KEEPS = {
    "1.0 keep-alive": b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n" + reply(),
    "103": b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 3 + reply(),
    "chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("how", CLOSES)
async def test_one_use(ours: Any, serve: Callable[..., Server], how: str) -> None:
    server = serve(after_request(lambda peer: peer.send(CLOSES[how]) or (how == "until closed" or peer.stall())))
    for _ in range(2):
        assert await called(ours, at(server), within(5)) == b"ok"
    assert server.connections == 2
    assert ours.kept == (0, 0)


@pytest.mark.parametrize("how", KEEPS)
async def test_many_uses(ours: Any, serve: Callable[..., Server], how: str) -> None:
    server = serve(answering(KEEPS[how]))
    for _ in range(3):
        assert await called(ours, at(server), within(5)) == b"ok"
    assert server.connections == 1


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n"),
    ],
)
async def test_no_body(ours: Any, serve: Callable[..., Server], method: str, answer: bytes) -> None:
    server = serve(answering(answer, reply()))
    assert await called(ours, at(server), within(2), get(None, method)) == b""
    assert await called(ours, at(server), within(2)) == b"ok"
    assert server.connections == 1


async def test_trailers(ours: Any, serve: Callable[..., Server]) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    server = serve(after_request(lambda peer: _slowly(peer, head + b"2\r\nok\r\n", b"0\r\nX-Sum: 7\r\n\r\n")))
    answer = await ours.send(at(server), get(), within(5))
    trailers = answer.extensions["trailers"]
    assert trailers == []
    assert await ours.read(answer) == b"ok"
    assert trailers == [(b"X-Sum", b"7")]
    await ours.let_go(answer)


def _slowly(peer: Peer, *pieces: bytes) -> None:
    for piece in pieces:
        peer.send(piece)
        peer.stopped.wait(0.05)
    peer.stall()


# --- who does not read --------------------------------------------------------------------------------


def pouring(sent: list[int]) -> Script:
    """Send a head, and once the test says so a huge body; `sent` counts how far it got."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % HUGE)
        peer.server.go_on.wait(20)
        for _ in range(HUGE // 65536):
            peer.send(b"x" * 65536)
            sent.append(65536)
        peer.stall()

    return script


def stopped(sent: list[int]) -> None:
    """Wait until nothing more is sent, for so long that what is left could have been sent many times."""
    before = -1
    while before != len(sent) < HUGE // 65536:
        before = len(sent)
        time.sleep(0.3)


async def test_a_server_does_not_run_ahead_of_the_reader(ours: Any, serve: Callable[..., Server]) -> None:
    """Beyond what lies here there is what both systems take, of a fixed size each.

    Left to itself ours takes ahead by how much was read at once, which is more where the reader was late: 2 to 4 MiB
    were seen, and `tcp_rmem[2]` is tens of them on some machines.
    """
    sent: list[int] = []
    server = serve(pouring(sent))
    answer = await ours.send(at(server), get(), within(20))
    sock = answer.extensions["network_stream"].get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
    server.go_on.set()
    size = len(await ours.piece(answer))
    await asyncio.to_thread(stopped, sent)
    assert sum(sent) < 2 * 1024 * 1024
    held = sum(map(len, answer.pieces))
    assert held <= 1024 * 1024, "the reader's own memory"
    for _ in range(10):
        size += len(await ours.piece(answer))
    assert size < HUGE
    await ours.let_go(answer)
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)


async def test_a_little_that_nobody_reads_is_read_here(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering(reply(b"x" * 30_000)))
    for _ in range(5):
        answer = await ours.send(at(server), get(), within(5))
        await asyncio.sleep(0.02)  # a thread reads only what is there
        await ours.let_go(answer)
        await asyncio.sleep(0.02)
    assert server.connections == 1


async def test_what_does_not_come_is_not_waited_for(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(after_request(lambda peer: (peer.send(reply(b"x" * LONG)[:-1]), peer.stall())))
    answer = await ours.send(at(server), get(), within(30))
    await asyncio.wait_for(ours.let_go(answer), 0.5)
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    assert ours.kept == (0, 0)


# --- upgrades -----------------------------------------------------------------------------------------

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n"


def echoing(peer: Peer) -> None:
    peer.request()
    peer.send(SWITCH + b"hello ")
    while data := peer.sock.recv(65536):
        peer.send(data)


async def test_an_upgrade(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(echoing)
    request = get(None, "GET", (b"Connection", b"upgrade"), (b"Upgrade", b"echo"))
    answer = await ours.send(at(server), request, within(5, max_connections=1))
    assert answer.status == 101
    assert await ours.duplex(answer, "read", 3, 5.0) == b"hel"
    assert await ours.duplex(answer, "read", 100, 5.0) == b"lo "
    for size in (1, 70_000, 300_000):
        sent = b"y" * size
        await ours.duplex(answer, "write", sent, 5.0)
        heard = b""
        while len(heard) < size:
            heard += await ours.duplex(answer, "read", 65536, 5.0)
        assert heard == sent
    with pytest.raises(TimeoutError):
        await ours.duplex(answer, "read", 1, 0.05)
    assert (await ours.duplex(answer, "read", 1, 5.0) if await _write(ours, answer, b"z") else None) == b"z"
    await ours.duplex(answer, "aclose")
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    await ours.let_go(answer)
    answer = await ours.send(at(server), request, within(5, max_connections=1))  # its place is free again
    await ours.let_go(answer)
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    assert ours.kept == (0, 0)


async def _write(ours: Any, answer: Any, data: bytes) -> bool:
    await ours.duplex(answer, "write", data, 5.0)
    return True


async def test_the_other_side_of_an_upgrade_closes(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(after_request(lambda peer: peer.send(SWITCH + b"bye")))
    answer = await ours.send(at(server), get(), within(5))
    assert await ours.duplex(answer, "read", 100, 5.0) == b"bye"
    assert await ours.duplex(answer, "read", 100, 5.0) == b""
    await ours.let_go(answer)
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    await asyncio.sleep(0.01)
    assert ours.kept == (0, 0)


async def test_facts_of_the_connection(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(after_request(lambda peer: (peer.send(reply(b"x" * LONG)[:-1]), peer.stall())))
    answer = await ours.send(at(server), get(), within(5))
    stream = answer.extensions["network_stream"]
    assert stream.get_extra_info("server_addr")[:2] == (server.host, server.port)
    assert stream.get_extra_info("client_addr")[0] == "127.0.0.1"
    assert stream.get_extra_info("ssl_object") is None
    assert stream.get_extra_info("weather") is None
    await ours.let_go(answer)

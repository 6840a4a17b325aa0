"""Kept connections that the server closes: what no program can have read is told as not written, and nothing else."""

from __future__ import annotations

import asyncio
import select
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from meshsdk.core.model import Endpoint, Phase, TransportFailure
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.aio.connection import Connection
from meshsdk.wire.blocking.connection import BlockingConnection
from meshsdk.wire.pooling import Pooling
from meshsdk.wire.sockets import unread_by_peer
from tests.wire.callers import Blocking, at, called, failing, get, within
from tests.wire.scripted import Peer, Server, answering, eventually, reply
from tests.wire.test_dial import LOOPS

POST = get(b"charge", "POST")
linux = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")


@pytest.mark.parametrize("rest", [0.0, 0.05])
async def test_one_closed_while_idle_is_not_used(ours: Any, serve: Callable[..., Server], rest: float) -> None:
    server = serve(lambda peer: (peer.request(), peer.send(reply())))
    for _ in range(3):
        assert await called(ours, at(server), within(5), POST) == b"ok"
        await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
        await asyncio.sleep(rest)
    assert server.connections == 3


@pytest.mark.parametrize("loop", LOOPS)
def test_one_that_the_server_closed_behind_its_reply_goes_to_nobody_who_waits(loop: str) -> None:
    """It said nothing of that, and the loop has seen the reply alone; under a limit of one all but the first wait."""

    async def call(engine: AsyncioEngine, endpoint: Endpoint) -> bytes:
        answer = await engine.send(endpoint, get(), within(5, max_connections=1))
        return b"".join([piece async for piece in answer])

    async def main() -> None:
        running, engine = asyncio.get_running_loop(), AsyncioEngine()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            calls = [asyncio.create_task(call(engine, at(listening.getsockname()[1]))) for _ in range(5)]
            async with asyncio.timeout(10):
                for _ in calls:
                    peer, _ = await running.sock_accept(listening)
                    with peer:
                        assert (await running.sock_recv(peer, 65536)).endswith(b"\r\n\r\n")
                        peer.sendall(reply())  # and closes, before the loop reads anything
                assert await asyncio.gather(*calls) == [b"ok"] * len(calls)
        await engine.aclose()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


@linux
async def test_a_close_that_races_with_the_request(ours: Any, serve: Callable[..., Server]) -> None:
    """The server closes right after its reply: each call works, is seen stale, or is provably unread; none is in doubt.

    Whoever closes with bytes unread resets, which proves nothing: then, and only then, `WRITTEN` is right.
    """
    server = serve(lambda peer: (peer.request(), peer.send(reply())))
    told: list[tuple[Phase, str]] = []
    for _ in range(300):
        try:
            await called(ours, at(server), within(5), POST)
        except Exception as error:
            failure = error.failure  # type: ignore[attr-defined]
            told.append((failure.phase, failure.kind))
            if failure.phase == Phase.WRITTEN:
                assert "connection broken" in failure.detail, "after FIN alone it is known that nobody read it"
    assert {kind for _, kind in told} <= {"reset"}
    assert {phase for phase, _ in told} <= {Phase.NOT_WRITTEN, Phase.WRITTEN}
    assert len(server.heads) <= 300, "a request was sent twice"


@linux
@pytest.mark.interpreted
async def test_a_request_to_a_closed_socket_was_not_written(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The close is on its way to us as we look, so that nothing is seen: made certain by not looking."""
    monkeypatch.setattr(Connection, "usable", lambda connection, now: connection.alive)
    monkeypatch.setattr(BlockingConnection, "has_expired", lambda connection: False)
    server = Racing()
    with server.listening:
        first = asyncio.create_task(called(ours, at(server.port), within(5), POST))
        sock = await asyncio.to_thread(server.answer)
        assert await first == b"ok"

        def close_and_send() -> Any:
            sock.close()
            return ours.engine.send(at(server.port), POST, within(5))

        with pytest.raises(TransportFailure) as caught:
            await (asyncio.to_thread(close_and_send) if isinstance(ours, Blocking) else ours.run(close_and_send))
    failure = caught.value.failure
    assert (failure.phase, failure.kind) == (Phase.NOT_WRITTEN, "reset"), failure


class Racing:
    """A server whose next close comes exactly when it is told, with all its sockets in the test's hand."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]

    def answer(self) -> socket.socket:
        sock, _ = self.listening.accept()
        sock.recv(65536)
        sock.sendall(reply())
        return sock


async def failed_after(ours: Any, act: Callable[[socket.socket], None]) -> Any:
    """Use a connection once, then let the server `act` while the second request goes out on it."""
    server = Racing()
    with server.listening:
        first = asyncio.create_task(called(ours, at(server.port), within(5), POST))
        sock = await asyncio.to_thread(server.answer)
        with sock:
            assert await first == b"ok"
            thread = threading.Thread(target=act, args=(sock,))
            thread.start()
            failure = await failing(ours, at(server.port), within(5), POST)
            await asyncio.to_thread(thread.join)
    return failure


def _readable(sock: socket.socket) -> None:
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    poller.poll(5000)


def _read_and_close(sock: socket.socket) -> None:
    sock.recv(65536)
    sock.close()


def _close_unread(sock: socket.socket) -> None:
    _readable(sock)
    sock.close()


def _reset(sock: socket.socket) -> None:
    _readable(sock)
    Peer(sock, threading.Event()).reset()


def _read_and_reset(sock: socket.socket) -> None:
    sock.recv(65536)
    Peer(sock, threading.Event()).reset()


@pytest.mark.parametrize("act", [_read_and_close, _close_unread, _reset, _read_and_reset], ids=lambda act: act.__name__)
async def test_what_a_server_may_have_read_was_written(ours: Any, act: Callable[[socket.socket], None]) -> None:
    failure = await failed_after(ours, act)
    assert (failure.phase, failure.kind) == (Phase.WRITTEN, "reset"), failure


async def test_closing_the_engine_proves_nothing_of_the_server(ours: Any, serve: Callable[..., Server]) -> None:
    """It has read the request and not acknowledged it yet (delayed ACK, up to 40 ms): that is no proof."""
    came = threading.Event()

    def script(peer: Peer) -> None:
        for _ in range(30):
            peer.request()
            peer.send(reply())
        peer.request()
        came.set()
        peer.stall()

    server = serve(script)
    for _ in range(30):
        await called(ours, at(server), within(5), POST)
    last = asyncio.create_task(failing(ours, at(server), within(5), POST))
    await asyncio.to_thread(came.wait, 5)
    await ours.close()
    failure = await last
    assert (failure.phase, failure.kind) == (Phase.WRITTEN, "closed"), failure
    assert "engine was closed" in failure.detail


async def test_what_comes_unasked_ends_an_idle_connection(ours: Any, serve: Callable[..., Server]) -> None:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(reply())
            peer.server.go_on.wait(5)
            peer.send(b"HTTP/1.1 408 Timeout\r\ncontent-length: 0\r\n\r\n")
            peer.stall()

    server = serve(script)
    await called(ours, at(server), within(5), POST)
    server.go_on.set()
    await asyncio.sleep(0.05)
    assert await called(ours, at(server), within(5), POST) == b"ok"
    assert server.connections == 2


async def test_a_connection_rests_no_longer_than_it_may(ours_with: Any, serve: Callable[..., Server]) -> None:
    ours, server = ours_with(pooling=Pooling(keep_alive=0.1)), serve(answering())
    for _ in range(2):
        await called(ours, at(server), within(5))
        await called(ours, at(server), within(5))
        await asyncio.sleep(0.15)
    assert server.connections == 2


async def test_a_connection_has_an_age(ours_with: Any, serve: Callable[..., Server]) -> None:
    ours, server = ours_with(pooling=Pooling(max_age=0.1)), serve(answering())
    await called(ours, at(server), within(5))
    await asyncio.sleep(0.12)
    await called(ours, at(server), within(5))
    assert server.connections == 2


# --- what the system tells ----------------------------------------------------------------------------


def _pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        return client, listening.accept()[0]


def _closed(sock: socket.socket) -> None:
    _readable(sock)


@linux
def test_unread_is_what_was_sent_to_a_closed_socket() -> None:
    client, server = _pair()
    with client:
        client.sendall(b"first")
        assert server.recv(10) == b"first"
        server.close()
        _closed(client)
        client.sendall(b"second")
        assert unread_by_peer(client, len(b"first"))
        assert not unread_by_peer(client, 0), "the first was read"


@linux
def test_what_was_acknowledged_is_not_unread() -> None:
    client, server = _pair()
    with client, server:
        client.sendall(b"first")
        assert server.recv(10) == b"first"
        server.shutdown(socket.SHUT_WR)
        _closed(client)
        assert not unread_by_peer(client, 0)


@linux
def test_nothing_is_known_of_a_closed_socket() -> None:
    client, server = _pair()
    server.close()
    client.close()
    assert not unread_by_peer(client, 0)


def test_nothing_is_known_of_a_socket_that_is_not_tcp() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert not unread_by_peer(one, 0)

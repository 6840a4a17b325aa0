"""A blocking engine that one thread closes while another works: what goes out, what is read, and whose descriptor."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshsdk.core.model import Phase, TransportFailure
from meshsdk.wire.blocking import BlockingEngine
from tests.wire.callers import at, get, within
from tests.wire.scripted import Peer, Server, after_request, answering, eventually, reply
from tests.wire.test_tls import Authority

SECRET = b"card number 4111" * 64
UPGRADE = (b"Connection", b"upgrade"), (b"Upgrade", b"x")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


class Slowly:
    """Stops a thread that closes before (or behind) the moment at which the system knows of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, behind: bool = False) -> None:
        self.there, self.go_on = threading.Event(), threading.Event()
        shutdown = socket.socket.shutdown

        def slowly(sock: socket.socket, how: int) -> None:
            if threading.current_thread() is not self.thread:
                shutdown(sock, how)
                return
            if behind:
                shutdown(sock, how)
            self.there.set()
            assert self.go_on.wait(5)
            if not behind:
                shutdown(sock, how)

        monkeypatch.setattr(socket.socket, "shutdown", slowly)

    def begin(self, close: Callable[[], None]) -> None:
        self.thread = threading.Thread(target=close)
        self.thread.start()
        assert self.there.wait(5)

    def end(self) -> None:
        self.go_on.set()
        self.thread.join(5)


class Reader(threading.Thread):
    """Reads on a thread, to the end; `failed` is how that ended."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        super().__init__(daemon=True)
        self._read_on = read
        self.got: list[bytes] = []
        self.failed: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            while data := self._read_on():
                self.got.append(data)
        except (TransportFailure, OSError) as error:
            self.failed = error


def recording(authority: Authority, heard: bytearray) -> Callable[[Peer], None]:
    """A server of TLS that notes what is on the wire after the handshake, and answers nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.file)

    def script(peer: Peer) -> None:
        came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(came, goes, server_side=True)
        while data := peer.sock.recv(65536):
            heard.extend(data)
            came.write(data)
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            peer.send(goes.read())

    return script


def test_nothing_goes_out_in_clear_text(
    serve: Callable[..., Server], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = bytearray()
    server = serve(recording(authority, heard))
    engine = BlockingEngine(secure=authority.trusting())
    closing = Slowly(monkeypatch)

    def body() -> Iterator[bytes]:
        yield SECRET
        closing.begin(engine.close)
        for _ in range(50):
            yield SECRET
        closing.end()
        while True:
            yield SECRET

    with pytest.raises(TransportFailure, match="engine was closed"):
        engine.send(at(server), get(body(), "POST"), within(5))
    eventually(lambda: server.open_connections == 0)
    assert len(heard) > 50 * len(SECRET)
    assert SECRET[:16] not in heard


@pytest.mark.parametrize("upgraded", [False, True])
def test_no_ciphertext_is_read(
    serve: Callable[..., Server], authority: Authority, monkeypatch: pytest.MonkeyPatch, upgraded: bool
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(SWITCHED if upgraded else b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            peer.send(b"A" * 16_000)

    engine = BlockingEngine(secure=authority.trusting())
    answer = engine.send(at(serve(authority.serving(script))), get(None, "GET", *UPGRADE), within(20))
    stream, pieces = answer.extensions["network_stream"], iter(answer)
    closing = Slowly(monkeypatch)
    reader = Reader((lambda: stream.read(65536)) if upgraded else lambda: next(pieces, b""))
    eventually(lambda: len(reader.got) > 3)
    closing.begin(engine.close)
    before = len(reader.got)
    eventually(lambda: len(reader.got) > before + 3 or not reader.is_alive())
    closing.end()
    reader.join(5)
    assert reader.failed is not None
    assert not b"".join(reader.got).strip(b"A")


@pytest.mark.parametrize("secured", [False, True])
def test_what_was_cut_here_is_not_whole(
    serve: Callable[..., Server], authority: Authority, monkeypatch: pytest.MonkeyPatch, secured: bool
) -> None:
    """A reply that ends with its connection, where the end is our own."""
    script = after_request(lambda peer: (peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf"), peer.stall()))
    engine = BlockingEngine(secure=authority.trusting() if secured else None)
    answer = engine.send(at(serve(authority.serving(script) if secured else script)), get(), within(5))
    pieces = iter(answer)
    reader = Reader(lambda: next(pieces, b""))
    eventually(lambda: reader.got == [b"half"])
    closing = Slowly(monkeypatch, behind=True)
    closing.begin(engine.close)
    reader.join(5)
    closing.end()
    assert isinstance(reader.failed, TransportFailure)
    assert (reader.failed.failure.phase, reader.failed.failure.detail) == (Phase.REPLY_STARTED, "the engine was closed")


@pytest.mark.parametrize("who", ["the stream", "the engine"])
@pytest.mark.parametrize("secured", [False, True])
def test_the_end_of_a_stream_closed_here_is_not_the_peers(
    serve: Callable[..., Server], authority: Authority, secured: bool, who: str
) -> None:
    script = after_request(lambda peer: (peer.send(SWITCHED + b"hello"), peer.stall()))
    server = serve(authority.serving(script) if secured else script)
    engine = BlockingEngine(secure=authority.trusting() if secured else None)
    answer = engine.send(at(server), get(None, "GET", *UPGRADE), within(5))
    stream = answer.extensions["network_stream"]
    sock = stream.get_extra_info("socket")
    reader = Reader(lambda: stream.read(100))
    eventually(lambda: reader.got == [b"hello"])
    (stream if who == "the stream" else engine).close()
    reader.join(5)
    assert isinstance(reader.failed, ConnectionAbortedError)
    with pytest.raises(ConnectionAbortedError, match="closed here"):
        stream.write(b"x")
    assert sock.fileno() == -1
    eventually(lambda: server.open_connections == 0)


def test_a_descriptor_is_not_closed_under_who_works_with_it(serve: Callable[..., Server]) -> None:
    """Its number could be another's by the time of the next call to the system."""
    server = serve(Peer.stall)
    engine = BlockingEngine()

    def body() -> Iterator[bytes]:
        yield b"one"
        (lane,) = engine._lanes._lanes.values()
        (connection,) = lane.open
        sock: Any = connection.sock
        socks.append(sock)
        number = sock.fileno()
        closing = threading.Thread(target=engine.close)
        closing.start()
        closing.join(5)
        os.fstat(number)
        assert sock.fileno() == number
        yield b"two"

    socks: list[socket.socket] = []
    with pytest.raises(TransportFailure, match="engine was closed"):
        engine.send(at(server), get(body(), "POST"), within(5))
    assert socks[0].fileno() == -1
    eventually(lambda: server.open_connections == 0)


def test_a_reply_read_on_after_the_engine_closed_waits_for_no_descriptor(serve: Callable[..., Server]) -> None:
    part = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"A" * 20_000
    server = serve(after_request(lambda peer: (peer.send(part), peer.stall())))
    engine = BlockingEngine()
    answer = engine.send(at(server), get(), within(5))
    number = answer.extensions["network_stream"].get_extra_info("socket").fileno()
    engine.close()
    others = [*socket.socketpair(), *socket.socketpair()]
    try:
        assert number in {other.fileno() for other in others}, "the number is taken"
        with pytest.raises(TransportFailure, match="engine was closed"):
            b"".join(answer)
    finally:
        for other in others:
            other.close()


@pytest.mark.interpreted
def test_closed_while_it_opens_a_connection(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    server, engine = serve(after_request(Peer.stall)), BlockingEngine()
    monkeypatch.setattr("meshsdk.wire.blocking.connection.peer_of", lambda sock: engine.close())
    with pytest.raises(TransportFailure) as caught:
        engine.send(at(server), get(), within(5))
    assert (caught.value.failure.kind, caught.value.failure.phase) == ("closed", Phase.NOT_CONNECTED)
    eventually(lambda: server.open_connections == 0)
    assert not server.heads


@pytest.mark.parametrize("secured", [False, True])
def test_nothing_goes_out_once_the_descriptor_is_anothers(
    serve: Callable[..., Server], authority: Authority, secured: bool
) -> None:
    """Even by who did not hold the connection."""
    script = answering(reply(b"hello"))
    server = serve(authority.serving(script) if secured else script)
    engine = BlockingEngine(secure=authority.trusting() if secured else None)
    engine.send(at(server), get(), within(5)).close()
    (lane,) = engine._lanes._lanes.values()
    (connection,) = lane.open
    connection.drop()
    for use in (lambda: connection._send(SECRET), lambda: connection._receive(1)):
        with pytest.raises(OSError, match="Bad file descriptor"):
            use()
    assert connection._pending() == 0
    engine.close()

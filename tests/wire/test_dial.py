"""A connection that is given up while it is opened leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import uvloop

from meshsdk.core.model import Endpoint
from meshsdk.wire.aio.connection import Connection
from meshsdk.wire.aio.dial import dial
from tests.wire.callers import at
from tests.wire.scripted import Peer, Server
from tests.wire.test_tls import Authority

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class CancelledAtTheEnd(asyncio.Protocol):
    """Stands for a connection whose bound is over in the same turn of the loop in which it is made."""

    def __init__(self) -> None:
        self.task = asyncio.current_task()

    def connection_made(self, transport: Any) -> None:
        assert self.task is not None
        self.transport = transport
        self.task.cancel()

    def abort(self) -> None:
        self.transport.abort()


class CancellingObject(ssl.SSLObject):
    """The same for one whose handshake is done."""

    tasks: ClassVar[list[asyncio.Task[Any]]] = []

    def do_handshake(self) -> None:
        super().do_handshake()
        self.tasks.pop().cancel()


@pytest.mark.parametrize("secured", [False, True])
@pytest.mark.parametrize("loop", LOOPS)
def test_its_descriptor_may_be_used_again_at_once(
    serve: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory, loop: str, secured: bool
) -> None:
    """asyncio says TLS's goodbye for a second; a socket closed under it would have the next one's number refused."""
    authority = Authority(tmp_path_factory.mktemp("tls"))
    server = serve(authority.serving(Peer.stall) if secured else Peer.stall)
    # As the mesh's servers do, TLS 1.2 sends no tickets behind its handshake, which would end the goodbye at once.
    secure = authority.trusting(version=ssl.TLSVersion.TLSv1_2)
    security = secure(at(server), "payments") if secured else None
    if security is not None:
        security.context.sslobject_class = CancellingObject

    async def main() -> None:
        running = asyncio.get_running_loop()
        given_up = asyncio.create_task(dial(at(server), security, lambda: cast("Connection", CancelledAtTheEnd())))
        CancellingObject.tasks[:] = [given_up]
        with pytest.raises(asyncio.CancelledError):
            await given_up
        found = [socket.socket() for _ in range(20)]  # among their numbers is the one before
        for sock in found:
            sock.connect(("127.0.0.1", server.port))
            running.add_reader(sock, lambda: None)  # which a loop refuses for what its transports have
            running.remove_reader(sock)
            (await running.create_connection(asyncio.Protocol, sock=sock))[0].abort()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_full_backlog_of_a_unix_socket_is_no_connection(tmp_path: Path, loop: str) -> None:
    """Its connect says EAGAIN and goes no further; the socket is writable and has no error, all the same."""
    with socket.socket(socket.AF_UNIX) as listening, contextlib.ExitStack() as stack:
        listening.bind(str(tmp_path / "s"))
        listening.listen(0)
        crowd = 0
        while (waiting := stack.enter_context(_unblocked())).connect_ex(str(tmp_path / "s")) == 0:
            crowd += 1

        async def main() -> None:
            dialling = asyncio.create_task(dial(Endpoint("s", str(tmp_path / "s"), 0), None, Telling))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not dialling.done()
            for _ in range(crowd):
                listening.accept()[0].close()
            told = await dialling
            stack.enter_context(listening.accept()[0]).sendall(b"x")
            assert await told.heard == b"x"
            told.abort()

        assert crowd
        assert waiting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_unix_socket_without_a_server_says_so(tmp_path: Path, loop: str) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner, pytest.raises(FileNotFoundError):
        runner.run(dial(Endpoint("s", str(tmp_path / "s"), 0), None, Telling))


class Telling(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard.set_result(data)

    def abort(self) -> None:
        self.transport.abort()


def _unblocked() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    return sock

"""A connection that is given up while it is opened leaves nothing behind."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, ClassVar, cast

import pytest
import uvloop

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

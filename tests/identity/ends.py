"""Both ends of real TLS connections over the loopback, on threads, asyncio and uvloop."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import uvloop

from meshsdk.identity.peer import socket_peer
from meshsdk.wire.security import PeerRejected, Security

__all__ = ["KINDS", "Seen", "exchange"]

PATIENCE = 10.0


@dataclass
class Seen:
    """What came of one connection.

    Attributes:
        answer: what the client read; empty where it got none.
        error: what the client's end raised.
        read: what the server's program read.
        peer: who the server's program was told calls.
        session: the client's, to resume with; of blocking sockets only.
    """

    answer: bytes = b""
    error: Exception | None = None
    read: bytes = b""
    peer: str = ""
    version: str | None = None
    session: ssl.SSLSession | None = None
    resumed: bool | None = None
    server_error: list[Exception] = field(default_factory=list)


def on_threads(server: ssl.SSLContext, client: Security, session: ssl.SSLSession | None = None) -> Seen:
    seen = Seen()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, server, seen))
        thread.start()
        try:
            with socket.create_connection(listener.getsockname(), PATIENCE) as sock:
                _call(sock, client, seen, session)
        except (OSError, PeerRejected) as error:
            seen.error = error
        thread.join()
    return seen


def _serve(listener: socket.socket, context: ssl.SSLContext, seen: Seen) -> None:
    sock, _ = listener.accept()
    sock.settimeout(PATIENCE)
    try:
        with context.wrap_socket(sock, server_side=True) as connection:
            seen.peer = str(socket_peer(connection))
            seen.read = connection.recv(10)
            if seen.read:
                connection.sendall(b"pong")
    except OSError as error:
        seen.server_error.append(error)
        sock.close()


def _call(sock: socket.socket, client: Security, seen: Seen, session: ssl.SSLSession | None) -> None:
    hostname = client.server_hostname or None
    with client.context.wrap_socket(sock, server_hostname=hostname, session=session) as connection:
        assert client.check is not None
        client.check(connection)
        connection.sendall(b"ping")
        seen.answer = connection.recv(10)
        seen.version, seen.session, seen.resumed = connection.version(), connection.session, connection.session_reused


async def _on_a_loop(server: ssl.SSLContext, client: Security) -> Seen:
    seen = Seen()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            seen.peer = str(socket_peer(writer.get_extra_info("ssl_object")))
            seen.read = await reader.read(10)
            if seen.read:
                writer.write(b"pong")
                await writer.drain()
        except OSError as error:
            seen.server_error.append(error)
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    port = listening.sockets[0].getsockname()[1]
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client.context, server_hostname=client.server_hostname
            )
            connection = writer.get_extra_info("ssl_object")
            assert client.check is not None
            client.check(connection)
            writer.write(b"ping")
            seen.answer, seen.version = await reader.read(10), connection.version()
    except (OSError, PeerRejected) as error:
        seen.error = error
    finally:
        if writer is not None:
            writer.close()
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())], timeout=1)
        listening.close()
        await listening.wait_closed()
        await asyncio.sleep(0.01)  # the server's end of a broken connection is told on the next turns
    return seen


def on_asyncio(server: ssl.SSLContext, client: Security) -> Seen:
    return asyncio.run(_on_a_loop(server, client))


def on_uvloop(server: ssl.SSLContext, client: Security) -> Seen:
    return uvloop.run(_on_a_loop(server, client))


Exchange = Callable[..., Seen]
KINDS: dict[str, Exchange] = {"threads": on_threads, "asyncio": on_asyncio, "uvloop": on_uvloop}
exchange = on_threads

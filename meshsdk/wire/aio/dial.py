"""Opens connections: to an address, or to a host name at each of its addresses, with TLS and the check of the peer."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar, cast

from meshsdk.core.model import Endpoint
from meshsdk.wire.aio.tls import Secured
from meshsdk.wire.security import PeerRejected, Security
from meshsdk.wire.sockets import check_port, literal_address

__all__ = ["Dialled", "dial"]

# RFC 8305, 5: a second address is tried while the first has not answered for so long.
_STAGGER: Final = 0.25

# Until the next try at a unix socket with a full backlog, in seconds: a server that keeps up accepts in less.
_AGAIN: Final = 0.005


class Dialled(Protocol):
    """An asyncio.Protocol that is to have a connection."""

    transport: asyncio.Transport

    def abort(self) -> None:
        """Close at once."""
        ...


D = TypeVar("D", bound=Dialled)


async def dial(endpoint: Endpoint, security: Security | None, make: Callable[[], D]) -> D:
    """Open a connection; bounded by the caller.

    Args:
        make: makes the protocol, once there is a connection to be had.

    Raises:
        OSError: it could not be opened (ssl.SSLError and gaierror are of this kind too).
        UnicodeError: the host name cannot be one.
        PeerRejected: the peer is not who it should be; nothing was sent to it.
    """
    if not endpoint.address.startswith("/"):
        check_port(endpoint.port)
    if security is not None and security.context.check_hostname and not security.server_hostname:
        raise PeerRejected("the TLS context checks host names and has none to check; set server_hostname")
    loop = asyncio.get_running_loop()
    sock = await _connected(loop, endpoint)
    if security is not None:
        return await _secured(loop, sock, security, make)
    connection = make()
    await _carried(loop, sock, connection)
    return connection


async def _secured(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, security: Security, make: Callable[[], D]
) -> D:
    secured = Secured(security.context, server_hostname=security.server_hostname or "")
    await _carried(loop, sock, secured)
    try:
        await secured.shaken()
        if security.check is not None:
            security.check(secured.get_extra_info("ssl_object"))
    except BaseException:
        secured.abort()
        raise
    connection = make()
    secured.carry(cast(asyncio.Protocol, connection))
    return connection


async def _carried(loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: Dialled) -> None:
    try:
        await loop.create_connection(lambda: cast(asyncio.Protocol, protocol), sock=sock)
    except BaseException:
        if hasattr(protocol, "transport"):
            # Given up in the moment it stood: its transport would go on watching the number of a socket that is closed
            # under it, and asyncio refuse whatever has that number next.
            protocol.abort()
        sock.close()
        raise


def _local(path: str) -> tuple[int, int, int, str, str] | None:
    """A unix socket, where the address is a path."""
    return (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", path) if path.startswith("/") else None


async def _connected(loop: asyncio.AbstractEventLoop, endpoint: Endpoint) -> socket.socket:
    literal = _local(endpoint.address) or literal_address(endpoint.address, endpoint.port)
    found: list[Any] = (
        [literal] if literal else await loop.getaddrinfo(endpoint.address, endpoint.port, type=socket.SOCK_STREAM)
    )
    if len(found) > 1:
        from aiohappyeyeballs import start_connection

        return await start_connection(found, happy_eyeballs_delay=_STAGGER, loop=loop)
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await _connect(loop, sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(loop: asyncio.AbstractEventLoop, sock: socket.socket, where: Any) -> None:
    """`loop.sock_connect`, which under uvloop has a thread of four ask the resolver what an address in digits means,
    and on either loop takes a unix socket whose backlog is full for connected.
    """
    code = sock.connect_ex(where)
    while code == errno.EAGAIN and sock.family == socket.AF_UNIX:  # its backlog is full, and nothing tells when not
        await asyncio.sleep(_AGAIN)
        code = sock.connect_ex(where)
    if code == errno.EINPROGRESS:
        writable = asyncio.Event()
        loop.add_writer(sock, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, f"Connect call failed {where}")

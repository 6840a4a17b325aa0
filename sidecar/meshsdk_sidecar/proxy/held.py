"""Connections that wait to be joined, and how they come to be: in clear text or TLS, half-closed where it must be."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import Any, TypeVar, cast

from meshsdk.core.model import Endpoint
from meshsdk.wire.aio.dial import Dialled, dial
from meshsdk.wire.aio.tls import Secured
from meshsdk.wire.security import PeerRejected, Security
from meshsdk.wire.sockets import prompt

__all__ = ["Held", "Place", "connect", "tune"]

P = TypeVar("P", bound=Dialled)

HELD = 64 * 1024
"""Bytes that are kept of a connection which waits; it is read no more then."""


class Held(asyncio.Protocol):
    """A connection that waits to be joined to another; what comes is kept.

    Attributes:
        kept: what came.
        done: the peer will send no more.
    """

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.kept = bytearray()
        self.done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self.transport = cast(asyncio.Transport, transport)
        tune(self.transport)

    def take(self, transport: asyncio.Transport) -> None:
        """Be the protocol of a connection that stands, or is about to."""
        self.transport = transport
        transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self.kept += data
        if len(self.kept) >= HELD:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """The peer will send no more."""
        self.done = True
        return self.transport.can_write_eof()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()


async def connect(endpoint: Endpoint, security: Security | None) -> Held:
    """Open a connection that can be half-closed, in TLS too; bounded by the caller.

    Raises:
        OSError, UnicodeError, PeerRejected: as `meshsdk.wire.aio.dial.dial`.
    """
    if security is None:
        return await _opened(endpoint, Held())
    if security.context.check_hostname and not security.server_hostname:
        raise PeerRejected("the TLS context checks host names and has none to check; set server_hostname")
    secured, held = Secured(security.context, server_hostname=security.server_hostname), Held()
    held.take(secured)
    await _opened(endpoint, secured)
    try:
        await secured.shaken()
        if security.check is not None:
            security.check(secured.get_extra_info("ssl_object"))
    except BaseException:
        secured.abort()
        raise
    return held


async def _opened(endpoint: Endpoint, protocol: P) -> P:
    """Dial in clear."""
    return await dial(endpoint, None, lambda: protocol)


class Place:
    """The connections to one instance, of which the policy may allow so many.

    Whoever finds them all taken waits its turn: a connection, unlike a request, has no other it could share.
    """

    __slots__ = ("_limit", "_taken", "_waiting")

    def __init__(self) -> None:
        self._limit = 0
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def unused(self) -> bool:
        """Whether it may be forgotten."""
        return not (self._taken or self._waiting)

    async def enter(self, limit: int) -> None:
        """Take one; 0 is no limit. It holds for those who wait already, too: it is the newest."""
        self._limit = limit
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._grant()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # it was granted, and is of no use any more
            else:
                with contextlib.suppress(ValueError):  # one that is cancelled was passed over already
                    self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Give it back."""
        self._taken -= 1
        self._grant()

    def _grant(self) -> None:
        """To those who wait, in their order."""
        while self._waiting and not 0 < self._limit <= self._taken:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._taken += 1


def tune(transport: asyncio.Transport) -> None:
    """Send small writes at once, and find out in the end that a host is gone which said nothing: its silence may be all
    there is for hours.
    """
    sock: Any = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        prompt(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

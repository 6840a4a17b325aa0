"""The mesh's own port beside an ASGI server's: mutual TLS, and clear text while the policy permits it.

Rule 1  The first byte tells them apart: 0x16 begins a TLS handshake (RFC 8446, 5.1), and no request of HTTP/1.1.
        It is looked at and left in the socket.
Rule 2  Nobody holds a place for long: first byte and handshake have `HANDSHAKE` seconds together, and where `WAITING`
        connections have not come so far, the oldest goes. An honest one needs milliseconds.
Rule 3  A strict service answers clear text with a hint and closes; the application never hears of it.
Rule 4  Each worker listens for itself (SO_REUSEPORT), and everything runs on the application's own loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from meshsdk.server.answers import UNVERIFIED, Answer
from meshsdk.wire.aio.tls import Secured

__all__ = ["HANDSHAKE", "WAITING", "Listener", "Serves"]

log = logging.getLogger("meshsdk.server")

HANDSHAKE = 5.0
WAITING = 256

TLS_HANDSHAKE = b"\x16"

_BACKLOG = 2048  # as uvicorn
_NO_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_PAUSE = 0.1  # seconds until a process without descriptors tries again
_LAST_READ = 1.0  # seconds in which a refused client may finish, so that it reads the hint and no reset (RFC 9112, 9.6)


class Serves(Protocol):
    """What connections are handed to; `meshsdk.server.protocol.Serving` is one."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing left to finish."""
        ...

    def protocol(self) -> asyncio.BaseProtocol:
        """For a new connection."""
        ...

    def drain(self) -> None:
        """Close each connection as soon as it has answered."""
        ...

    def abort(self) -> None:
        """Break off whatever is left."""
        ...


class Listener:
    """An open port; lives on one event loop.

    Args:
        serving: takes the connections.
        context: for handshakes.
        strict: whether clear text is refused, asked at each connection.
        host: the address to listen at; empty for all.
        port: the port.
    """

    def __init__(
        self, serving: Serves, *, context: ssl.SSLContext, strict: Callable[[], bool], host: str, port: int
    ) -> None:
        self._serving = serving
        self._context = context
        self._strict = strict
        self._addresses = (host,) if host else ("0.0.0.0", "::")
        self.port = port
        self._sockets: list[socket.socket] = []
        self._pauses: list[asyncio.TimerHandle] = []
        self._greeted: dict[asyncio.Task[None], socket.socket | None] = {}  # in the order they came
        self._loop: asyncio.AbstractEventLoop

    @property
    def unfinished(self) -> int:
        """Connections whose first byte or handshake is awaited."""
        return len(self._greeted)

    async def open(self, *, alone: bool, sockets: Sequence[socket.socket] = ()) -> None:
        """Listen.

        Args:
            alone: whether no other process of the same instance listens: then a port that somebody else has is an
                error, although the system would share it between all processes of this user.
            sockets: ones that listen already, in place of new ones.

        Raises:
            OSError: the port is taken, or no such address is ours.
        """
        self._sockets = list(sockets)
        for listening in sockets:
            listening.setblocking(False)  # to accept from one that blocks would stop the loop
        try:
            for address in () if sockets else self._addresses:
                self._listen(address, alone=alone)
        except OSError:
            self._let_go()
            raise
        self._loop = asyncio.get_running_loop()
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    async def stop(self) -> None:
        """Take no more connections; those that there are go on."""
        for pause in self._pauses:
            pause.cancel()
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            self._greet_waiting(listening)  # who was told of this port a moment ago is not hung up on
        self._let_go()

    async def close(self, seconds: float) -> None:
        """Take no more connections, and give those that there are `seconds` to answer what they were asked."""
        await self.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if self._greeted:
                    await asyncio.wait(self._greeted)
                self._serving.drain()
                while not self._serving.idle:  # noqa: ASYNC110  # uvicorn waits for its own in the same way
                    await asyncio.sleep(0.02)
        for task in list(self._greeted):
            task.cancel()
        self._serving.abort()

    def _listen(self, address: str, *, alone: bool) -> None:
        try:
            self._sockets.append(_listening(address, self.port, alone=alone))
        except OSError as error:
            # A machine without IPv6 has no `::` to listen at.
            if address == "::" and self._sockets and error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                return
            raise OSError(error.errno, f"port {self.port} at {address}: {error.strerror or error}") from error

    def _let_go(self) -> None:
        for listening in self._sockets:
            listening.close()
        self._sockets = []

    def _accept(self, listening: socket.socket) -> None:
        """Take one who waits. No task does this: one that is cancelled may have been given a connection already."""
        try:
            connection, _ = listening.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                log.error("no connection can be accepted on port %d: %s", self.port, error.strerror)
                self._loop.remove_reader(listening)
                again = self._loop.call_later(_PAUSE, self._loop.add_reader, listening, self._accept, listening)
                self._pauses = [pause for pause in self._pauses if pause.when() > self._loop.time()] + [again]
            return  # anything else is a caller who has gone already
        self._greet(connection)

    def _greet_waiting(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):  # at the latest that nobody waits
            while True:
                self._greet(listening.accept()[0])

    def _greet(self, connection: socket.socket) -> None:
        if len(self._greeted) >= WAITING:
            oldest = next(iter(self._greeted))
            oldest.cancel()
            self._forget(oldest)
        connection.setblocking(False)
        task = self._loop.create_task(self._let_in(connection))
        self._greeted[task] = connection
        task.add_done_callback(self._ended)

    def _forget(self, task: asyncio.Task[None]) -> None:
        untouched = self._greeted.pop(task, None)
        if untouched is not None:  # it was cancelled before its first step
            untouched.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._forget(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection could not be taken", exc_info=error)

    async def _let_in(self, connection: socket.socket) -> None:
        loop, kept = self._loop, False
        task = asyncio.current_task()
        if task in self._greeted:
            self._greeted[task] = None  # closed here from now on
        try:
            async with asyncio.timeout(HANDSHAKE):
                first = await _first_byte(connection)
                if first == TLS_HANDSHAKE:
                    kept = True  # closed by its transport from here on
                    await self._secure(connection)
                elif first and self._strict():
                    await _refuse(connection)
                elif first:
                    kept = True
                    await loop.connect_accepted_socket(self._serving.protocol, connection)
        except (OSError, TimeoutError) as error:  # ssl.SSLError is one; the identity has counted and told it
            log.debug("a connection to the mesh's port ended before its first request: %s", error)
        finally:
            if not kept:
                connection.close()

    async def _secure(self, connection: socket.socket) -> None:
        secured = Secured(self._context, server_side=True)
        await self._loop.connect_accepted_socket(lambda: cast(asyncio.Protocol, secured), connection)
        try:
            await secured.shaken()
        except BaseException:
            secured.abort()
            raise
        secured.carry(self._serving.protocol())


def _listening(address: str, port: int, *, alone: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if alone:
        _bound(family, address, port, shared=False).close()
    listening = _bound(family, address, port, shared=True)
    listening.listen(_BACKLOG)
    return listening


def _bound(family: int, address: str, port: int, *, shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it accepts inherits this
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared and hasattr(socket, "SO_REUSEPORT"):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made


async def _first_byte(connection: socket.socket) -> bytes:
    """The first byte, left in the socket; empty where the caller hung up."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            readable: asyncio.Future[Any] = loop.create_future()
            loop.add_reader(connection, _settle, readable)
            try:
                await readable
            finally:
                loop.remove_reader(connection)


def _settle(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)


async def _refuse(connection: socket.socket) -> None:
    """Say why, end our side, and read on until the client has ended its own, a bounded time and amount."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, Answer(400, f"{UNVERIFIED}\n".encode()).last_words)
    connection.shutdown(socket.SHUT_WR)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_READ):
            for _ in range(16):
                if not await loop.sock_recv(connection, 65536):
                    return

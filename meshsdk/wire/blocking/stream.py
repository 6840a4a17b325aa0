"""What is under a reply: facts about its connection, and after an upgrade (101) the connection itself."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import TYPE_CHECKING, Any

from meshsdk.wire.blocking.waits import Late, ready

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from meshsdk.wire.blocking.connection import BlockingConnection

__all__ = ["DuplexStream", "StreamInfo"]


class StreamInfo:
    """`network_stream` of an ordinary reply: tells of the connection, and cannot be read or written."""

    __slots__ = ("_connection",)

    def __init__(self, connection: BlockingConnection) -> None:
        self._connection = connection

    def get_extra_info(self, info: str) -> Any:
        """`ssl_object`, `server_addr`; `socket` or `client_addr` while it is open; None for what is not known."""
        return _told(self._connection, info)


class DuplexStream:
    """`network_stream` after 101: bytes both ways, of whatever protocol was agreed on.

    One thread may read while another writes. Both would be in one object of OpenSSL's at once, which takes one thread
    at a time; CPython does not see to it (its issue 151508 is a crash), so they take turns. Nobody waits for the peer
    in his turn.

    Args:
        connection: that was upgraded.
        surplus: bytes that came with the head.
        closed: called when it closes.
    """

    def __init__(self, connection: BlockingConnection, surplus: bytes, closed: Callable[[], None]) -> None:
        self._connection = connection
        self._surplus = surplus
        self._closed = closed
        self._turn = threading.Lock()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, at most `max_bytes`; nothing means that the peer closed.

        Raises TimeoutError after `timeout` seconds, ConnectionError where the connection broke.
        """
        if self._surplus:
            data, self._surplus = self._surplus[:max_bytes], self._surplus[max_bytes:]
            return data
        until = None if timeout is None else time.monotonic() + timeout
        with self._working() as sock:
            data = self._receive(sock, max_bytes, until)
            if not data and self._connection.closed:  # an end of our own making, not the peer's
                raise _closed()
        return data

    def write(self, buffer: Buffer, timeout: float | None = None) -> None:
        """Write all of `buffer`; raises as `read` does."""
        left = memoryview(buffer)
        until = None if timeout is None else time.monotonic() + timeout
        with self._working() as sock:
            while left:
                try:
                    with self._turn:
                        sent = sock.send(left)
                    left = left[sent:]
                except (BlockingIOError, ssl.SSLWantWriteError):
                    _wait(sock, select.POLLOUT, until)
                except ssl.SSLWantReadError:
                    _wait(sock, select.POLLIN, until)

    def close(self) -> None:
        """Close the connection."""
        self._closed()

    def get_extra_info(self, info: str) -> Any:
        """`ssl_object`, `server_addr`; `socket` or `client_addr` while it is open; None for what is not known."""
        return _told(self._connection, info)

    def _receive(self, sock: socket.socket, most: int, until: float | None) -> bytes:
        while True:
            try:
                with self._turn:
                    return sock.recv(most)
            except (BlockingIOError, ssl.SSLWantReadError):
                _wait(sock, select.POLLIN, until)
            except ssl.SSLWantWriteError:
                _wait(sock, select.POLLOUT, until)
            except ssl.SSLZeroReturnError:
                return b""

    @contextlib.contextmanager
    def _working(self) -> Iterator[socket.socket]:
        connection = self._connection
        try:
            connection.hold()
            if connection.closed:
                raise _closed()
            assert connection.sock is not None
            yield connection.sock
        except (ConnectionError, ssl.SSLError) as error:
            if connection.closed:
                raise _closed() from error
            raise
        finally:
            connection.release()


def _wait(sock: socket.socket, events: int, until: float | None) -> None:
    try:
        ready(sock, events, inf if until is None else until - time.monotonic())
    except Late:
        raise TimeoutError("the peer did nothing in time") from None


def _closed() -> ConnectionError:
    return ConnectionAbortedError("the connection was closed here")


def _told(connection: BlockingConnection, info: str) -> Any:
    match info:
        case "ssl_object":
            return connection.tls
        case "server_addr":
            return connection.peer
    sock = connection.sock
    if sock is None or sock.fileno() < 0:
        return None
    match info:
        case "socket":
            return sock
        case "client_addr":
            return sock.getsockname()
    return None

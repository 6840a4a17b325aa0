"""What is under a reply: facts about its connection, and after an upgrade (101) the connection itself."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["DuplexStream", "StreamInfo"]


class StreamInfo:
    """`network_stream` of an ordinary reply: tells of the connection, and cannot be read or written."""

    __slots__ = ("_sock", "_tls")

    def __init__(self, sock: socket.socket | None, tls: ssl.SSLObject | None) -> None:
        self._sock = sock
        self._tls = tls

    def get_extra_info(self, info: str) -> Any:
        """`ssl_object`; `socket`, `client_addr` or `server_addr` while it is open; None for what is not known."""
        return _told(self._sock, self._tls, info)


class DuplexStream:
    """`network_stream` after 101: bytes both ways, of whatever protocol was agreed on.

    Args:
        sock: not blocking.
        tls: what there is to ask of its TLS, None in clear text.
        surplus: bytes that came with the head.
        closed: called when it closes.
    """

    def __init__(
        self, sock: socket.socket, tls: ssl.SSLObject | None, surplus: bytes, closed: Callable[[], None]
    ) -> None:
        self._sock = sock
        self._tls = tls
        self._surplus = surplus
        self._closed = closed

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, at most `max_bytes`; nothing means that the peer closed.

        Raises TimeoutError after `timeout` seconds, ConnectionError where the connection broke.
        """
        if self._surplus:
            data, self._surplus = self._surplus[:max_bytes], self._surplus[max_bytes:]
            return data
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self._sock.recv(max_bytes)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(select.POLLIN, until)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, until)
            except ssl.SSLZeroReturnError:
                return b""

    def write(self, buffer: Buffer, timeout: float | None = None) -> None:
        """Write all of `buffer`; raises as `read` does."""
        left = memoryview(buffer)
        until = None if timeout is None else time.monotonic() + timeout
        while left:
            try:
                sent = self._sock.send(left)
                left = left[sent:]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(select.POLLOUT, until)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, until)

    def close(self) -> None:
        """Close the connection."""
        self._closed()

    def get_extra_info(self, info: str) -> Any:
        """`ssl_object`; `socket`, `client_addr` or `server_addr` while it is open; None for what is not known."""
        return _told(self._sock, self._tls, info)

    def _wait(self, events: int, until: float | None) -> None:
        poller = select.poll()
        poller.register(self._sock.fileno(), events)
        left = None if until is None else until - time.monotonic()
        if (left is not None and left <= 0) or not poller.poll(None if left is None else ceil(left * 1000)):
            raise TimeoutError("the peer did nothing in time")


def _told(sock: socket.socket | None, tls: ssl.SSLObject | None, info: str) -> Any:
    if info == "ssl_object":
        return tls
    if sock is None or sock.fileno() < 0:
        return None
    match info:
        case "socket":
            return sock
        case "client_addr":
            return sock.getsockname()
        case "server_addr":
            return sock.getpeername()
    return None

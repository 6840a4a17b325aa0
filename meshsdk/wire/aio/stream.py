"""What is under a reply: facts about its connection, and after an upgrade (101) the connection itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from meshsdk.wire.aio.connection import Connection

__all__ = ["DuplexStream", "StreamInfo"]

_HIGH_WATER: Final = 64 * 1024
_NAMES: Final = {"client_addr": "sockname", "server_addr": "peername"}  # httpx's names, asyncio's names


class StreamInfo:
    """`network_stream` of an ordinary reply: tells of the connection, and cannot be read or written."""

    __slots__ = ("_transport",)

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def get_extra_info(self, info: str) -> Any:
        """`socket`, `client_addr`, `server_addr` or `ssl_object`; None for what is not known."""
        return self._transport.get_extra_info(_NAMES.get(info, info))


class DuplexStream(asyncio.Protocol):
    """`network_stream` after 101: bytes both ways, of whatever protocol was agreed on."""

    def __init__(self, connection: Connection, surplus: bytes) -> None:
        self._connection = connection
        self._transport = connection.transport
        self._buffer = bytearray(surplus)
        self._ended = False
        self._error: Exception | None = None
        self._news: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @classmethod
    def take_over(cls, connection: Connection, surplus: bytes) -> DuplexStream:
        """Read and write in place of `connection`, which still counts as open until this closes."""
        stream = cls(connection, surplus)
        connection.transport.set_protocol(stream)
        connection.transport.resume_reading()
        return stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpx's interface
        """Read what is there, at most `max_bytes`; nothing means that the peer closed.

        Raises TimeoutError after `timeout` seconds, ConnectionError where the connection broke.
        """
        async with asyncio.timeout(timeout):
            while not (self._buffer or self._ended):
                self._news = asyncio.get_running_loop().create_future()
                await self._news
        if not self._buffer and self._error is not None:
            raise ConnectionResetError("the connection broke") from self._error
        data = bytes(self._buffer[:max_bytes])
        del self._buffer[:max_bytes]
        if len(self._buffer) < _HIGH_WATER and not self._ended:
            self._transport.resume_reading()
        return data

    async def write(
        self,
        buffer: bytes | bytearray | memoryview,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> None:
        """Write all of `buffer`; raises as `read` does."""
        if self._transport.is_closing():
            raise BrokenPipeError("the connection is closed") from self._error
        self._transport.write(buffer)
        async with asyncio.timeout(timeout):
            await self._writable.wait()
        if self._error is not None:
            raise ConnectionResetError("the connection broke") from self._error

    async def aclose(self) -> None:
        """Close the connection, once what was written is sent."""
        self._transport.close()

    def get_extra_info(self, info: str) -> Any:
        """`socket`, `client_addr`, `server_addr` or `ssl_object`; None for what is not known."""
        return self._transport.get_extra_info(_NAMES.get(info, info))

    def data_received(self, data: bytes) -> None:
        """Asyncio: bytes have come."""
        self._buffer += data
        if len(self._buffer) >= _HIGH_WATER:
            self._transport.pause_reading()
        self._tell()

    def eof_received(self) -> bool:
        """Asyncio: the peer will send no more; ours to send stays open, under TLS too (`wire.aio.tls`)."""
        self._ended = True
        self._tell()
        return True

    def pause_writing(self) -> None:
        """Asyncio: what was written is too much for now."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Asyncio: write on."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio: the connection is closed."""
        self._ended = True
        self._error = exc
        self._writable.set()
        self._tell()
        self._connection.connection_lost(None)

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():
            news.set_result(None)

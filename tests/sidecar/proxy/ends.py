"""Both ends of a proxy as scripts: clients that write bytes, an app that answers with bytes; nothing of them is ours.

Messages are read here by a few lines of their own, so that what the proxy sends is judged by somebody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

# Bytes of the shortest body that is not waited for: its reply is handed on at the head.
LONG = 16 * 1024 + 1


class Cut(Exception):
    """The connection ended in the middle of a message."""


@dataclass
class Message:
    """A request or a reply, as it came.

    Attributes:
        line: the first one.
        framing: how the body's end was told: `none`, `length`, `chunked` or `eof`.
    """

    line: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    framing: str = "none"
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.line.split(b" ", 2)[1])

    @property
    def method(self) -> bytes:
        return self.line.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1]

    @property
    def names(self) -> list[bytes]:
        return [name for name, _ in self.fields]

    def all(self, name: bytes) -> list[bytes]:
        return [value for known, value in self.fields if known.lower() == name]

    def get(self, name: bytes) -> bytes | None:
        return next(iter(self.all(name)), None)


async def _lines(reader: asyncio.StreamReader) -> list[bytes]:
    try:
        block = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise Cut(error.partial) from None
    return block[:-4].split(b"\r\n")


def _fields(lines: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    return [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]


async def read_head(reader: asyncio.StreamReader) -> Message:
    first, *rest = await _lines(reader)
    return Message(first, _fields(rest))


async def read_body(reader: asyncio.StreamReader, message: Message, *, reply: bool, bare: bool = False) -> Message:
    """Read the rest of a message, as RFC 9112, 6.3 says."""
    coding, length = message.get(b"transfer-encoding"), message.get(b"content-length")
    if bare:
        return message
    try:
        if coding is not None:
            assert coding == b"chunked"
            assert length is None
            message.framing = "chunked"
            await _chunks(reader, message)
        elif length is not None:
            message.framing = "length"
            message.body = await reader.readexactly(int(length))
        elif reply:
            message.framing = "eof"
            message.body = await reader.read()
    except asyncio.IncompleteReadError as error:
        raise Cut(message.body + error.partial) from None
    return message


async def _chunks(reader: asyncio.StreamReader, message: Message) -> None:
    body = bytearray()
    while True:
        line = await reader.readline()
        if not line.endswith(b"\r\n"):
            raise Cut(bytes(body))
        size = int(line.split(b";")[0], 16)
        if not size:
            break
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    message.body = bytes(body)
    while line := (await reader.readline())[:-2]:
        message.trailers += _fields([line])


class End:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def sock(self) -> socket.socket:
        return self.writer.get_extra_info("socket")

    def write(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))
        await self.writer.drain()

    def reset(self) -> None:
        """Close with RST."""
        if self.writer.transport.is_closing():
            return
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def rest(self) -> bytes:
        """Everything until the other end closes."""
        return await self.reader.read()

    async def closed(self) -> bool:
        """Whether the other end closes, in either way, and says no more before."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 5) == b""
        except OSError:
            return True


class Client(End):
    @classmethod
    async def open(cls, port: int, **options: object) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**18, **options))  # type: ignore[arg-type]

    async def reply(self, method: bytes = b"GET") -> Message:
        """The next reply, interim ones included."""
        message = await read_head(self.reader)
        bare = method == b"HEAD" or message.status < 200 or message.status in {204, 304}
        return await read_body(self.reader, message, reply=True, bare=bare)

    async def ask(self, *data: bytes, method: bytes = b"GET") -> Message:
        await self.send(*data)
        return await self.reply(method)


class Peer(End):
    """The app's end of one connection."""

    def __init__(self, app: App, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.app = app

    async def head(self) -> Message:
        """The head of the next request."""
        return await read_head(self.reader)

    async def request(self) -> Message:
        """The next request, noted on the app."""
        message = await read_body(self.reader, await self.head(), reply=False)
        self.app.requests.append(message)
        return message


Script = Callable[[Peer], Awaitable[None]]


def ok(body: bytes = b"ok", status: int = 200, fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d Whatever\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), fields, body)


def answering_after(event: asyncio.Event) -> Script:
    """Answer no request before `event`."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await event.wait()
            await peer.send(ok())

    return script


def answering(*replies: bytes) -> Script:
    """Answer requests one after the other, over all connections; the last reply for ever."""
    left = list(replies) or [ok()]

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(left.pop(0) if len(left) > 1 else left[0])

    return script


async def echoing(peer: Peer) -> None:
    """Answer with what was asked."""
    while True:
        request = await peer.request()
        await peer.send(ok(request.method + b" " + request.target + b" " + request.body))


class App:
    """Listens, and does to each connection what `script` says at that moment."""

    def __init__(self, script: Script = echoing) -> None:
        self.script = script
        self.requests: list[Message] = []
        self.connections = 0
        self.peers: set[Peer] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def open(self) -> App:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**18, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        peer = Peer(self, reader, writer)
        self.peers.add(peer)
        try:
            with contextlib.suppress(Cut, OSError, asyncio.IncompleteReadError):
                await self.script(peer)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self.peers.discard(peer)
            self._tasks.discard(task)
            writer.close()


@contextlib.asynccontextmanager
async def serving(script: Script = echoing) -> AsyncIterator[App]:
    app = await App(script).open()
    try:
        yield app
    finally:
        await app.close()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.002)

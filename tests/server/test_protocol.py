"""What a connection to the mesh's own port may hold and cost before, between and after its requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from meshsdk.server import protocol
from meshsdk.server.inbound import Intake
from tests.server.mesh_port import CHECKOUT, mesh_port

GET = b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n"
PIECE = b"a" * 4096
BOTH = pytest.mark.parametrize("context", [None, CHECKOUT], ids=["clear", "tls"])


async def reply(reader: asyncio.StreamReader) -> bytes:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
    return head


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the end."""
    return await asyncio.wait_for(reader.read(), 5)


@BOTH
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "later"])
@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nhost: shop\r\nx: "])
async def test_head_without_an_end_is_refused(intake: Intake, context: Any, before: bytes, start: bytes) -> None:
    async with mesh_port(intake) as port:
        reader, writer = await port.connect(context)
        if before:
            writer.write(before)
            assert (await reply(reader)).startswith(b"HTTP/1.1 200")
        writer.write(start)
        for _ in range(protocol.HEAD // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()
        answer = await rest(reader)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b"may have 65536 bytes" in answer
        writer.close()
        assert len(port.seen) == bool(before)


async def test_large_head_in_parts_is_served(intake: Intake) -> None:
    async with mesh_port(intake) as port:
        reader, writer = await port.connect(None)
        writer.write(b"GET / HTTP/1.1\r\nhost: shop\r\n")
        for number in range(15):
            writer.write(b"x%d: %s\r\n" % (number, PIECE))
            await writer.drain()
        writer.write(b"\r\n")
        assert (await reply(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_trailers_without_an_end_close_the_connection(intake: Intake) -> None:
    async with mesh_port(intake) as port:
        reader, writer = await port.connect(None)
        writer.write(b"POST /wait HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx: ")
        await port.called()
        for _ in range(protocol.HEAD // len(PIECE) + 1):
            writer.write(PIECE)
            await writer.drain()
        assert await rest(reader) == b""
        writer.close()


async def test_body_in_the_smallest_chunks_is_no_head(intake: Intake) -> None:
    async with mesh_port(intake) as port:
        reader, writer = await port.connect(None)
        writer.write(b"POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(40):
            writer.write(b"1\r\na\r\n" * 1000)
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        assert (await reply(reader)).startswith(b"HTTP/1.1 200")
        writer.write(GET)
        assert (await reply(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


@BOTH
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "later"])
async def test_head_in_parts_has_so_much_time(
    intake: Intake, monkeypatch: pytest.MonkeyPatch, context: Any, before: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    async with mesh_port(intake) as port:
        reader, writer = await port.connect(context)
        if before:
            writer.write(before)
            await reply(reader)
        writer.write(b"G")
        assert await rest(reader) == b""
        writer.close()
        assert len(port.seen) == bool(before)


async def test_time_of_a_head_is_over_with_it(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    async with mesh_port(intake) as port:
        slow, slow_writer = await port.connect(None)
        slow_writer.write(b"GET /wait HTTP/1.1\r\nhost: ")
        other, other_writer = await port.connect(None)
        slow_writer.write(b"shop\r\n\r\n")
        await port.called()
        other_writer.write(b"G")  # its time begins after the other's
        assert await rest(other) == b""
        port.release.set()
        assert (await reply(slow)).startswith(b"HTTP/1.1 200")
        slow_writer.close()
        other_writer.close()


@pytest.mark.parametrize(
    "asked", [b"", b"POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 9\r\n\r\n"], ids=["nothing", "answered early"]
)
async def test_who_asks_nothing_is_let_go(intake: Intake, monkeypatch: pytest.MonkeyPatch, asked: bytes) -> None:
    monkeypatch.setattr(protocol, "KEEP_ALIVE", 1.0)
    async with mesh_port(intake) as port:
        reader, writer = await port.connect()
        if asked:
            writer.write(asked)
            await reply(reader)
            writer.write(b"b")  # of a body that nobody waits for
        assert await rest(reader) == b""
        writer.close()

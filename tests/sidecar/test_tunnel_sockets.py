"""Tunnels between real transports of both loops, as an upgrade joins them: plain, and TLS whose peers are asyncio's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from meshsdk.identity.contexts import client_context, server_context
from meshsdk.wire.aio.tls import Secured
from meshsdk.wire.aio.watch import Watch
from meshsdk_sidecar.proxy.tunnel import ABORTED, ENDED, IDLE, LEFT_LOST, Tunnel, TunnelEnd
from tests.identity.certificates import material
from tests.sidecar.tcp_ends import CA, LOOPS, until

CLIENT, SERVER = client_context(material("web", CA)), server_context(material("db", CA))


@pytest.fixture(params=LOOPS)
def run(request: Any) -> Any:
    return LOOPS[request.param]


@pytest.fixture(autouse=True)
def nothing_raised_in_callbacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelname == "ERROR"] == []


class Joined:
    """A tunnel, and the two peers it lies between."""

    def __init__(self) -> None:
        self.ends: list[TunnelEnd] = []
        self.watch = Watch(asyncio.get_running_loop(), time.monotonic)
        self.tunnel: Tunnel
        self.left: tuple[asyncio.StreamReader, asyncio.StreamWriter]
        self.right: tuple[asyncio.StreamReader, asyncio.StreamWriter]

    async def over(self) -> TunnelEnd:
        await until(lambda: self.ends)
        (end,) = self.ends
        assert not self.watch._waits
        return end


@asynccontextmanager
async def joined(*, left_tls: bool = False, right_tls: bool = False, **options: Any) -> AsyncIterator[Joined]:
    found = Joined()
    made: asyncio.Queue[asyncio.BaseTransport] = asyncio.Queue()

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.put_nowait(transport)

    def secured() -> asyncio.Protocol:
        inside = Secured(SERVER, server_side=True, ready=lambda _: made.put_nowait(inside))
        return cast(asyncio.Protocol, inside)

    peers, transports, servers = [], [], []
    for tls in (left_tls, right_tls):
        loop = asyncio.get_running_loop()
        server = await loop.create_server(secured if tls else Accepted, "127.0.0.1", 0)
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        extra = {"ssl": CLIENT, "server_hostname": ""} if tls else {}
        peers.append(await asyncio.open_connection("127.0.0.1", port, **extra))
        transports.append(cast(asyncio.Transport, await made.get()))
    found.left, found.right = peers
    found.tunnel = Tunnel.join(*transports, ended=found.ends.append, watch=found.watch, clock=time.monotonic, **options)
    try:
        yield found
    finally:
        found.tunnel.abort()
        for _, writer in peers:
            writer.transport.abort()
        for server in servers:
            server.close()
        await asyncio.sleep(0.02)


WAYS = pytest.mark.parametrize(("left_tls", "right_tls"), [(False, False), (True, False), (False, True), (True, True)])


@WAYS
def test_both_ways_and_an_end(run: Any, left_tls: bool, right_tls: bool) -> None:
    async def scene() -> None:
        data = bytes(range(256)) * 4000
        async with joined(left_tls=left_tls, right_tls=right_tls, to_left=b"101 ", to_right=b"early ") as pair:
            for (_, writer), (reader, _), first in (
                (pair.left, pair.right, b"early "),
                (pair.right, pair.left, b"101 "),
            ):
                writer.write(data)
                async with asyncio.timeout(5):
                    assert await reader.readexactly(len(first + data)) == first + data
            pair.left[1].close()
            async with asyncio.timeout(5):
                assert await pair.right[0].read() == b""
            pair.right[1].close()
            end = await pair.over()
            assert (end.why, end.to_left, end.to_right) == (ENDED, len(data) + 4, len(data) + 6)

    run(scene())


def test_half_closed(run: Any) -> None:
    async def scene() -> None:
        async with joined() as pair:
            pair.left[1].write(b"all")
            pair.left[1].write_eof()
            async with asyncio.timeout(5):
                assert await pair.right[0].read() == b"all"
                pair.right[1].write(b"answer")
                pair.right[1].write_eof()
                assert await pair.left[0].read() == b"answer"
            assert (await pair.over()).why == ENDED

    run(scene())


@WAYS
def test_one_that_never_reads(run: Any, left_tls: bool, right_tls: bool) -> None:
    async def scene() -> None:
        async with joined(left_tls=left_tls, right_tls=right_tls, idle=0.6) as pair:
            pair.left[1].transport.pause_reading()
            writer = pair.right[1]
            sent, moved = 0, time.monotonic()
            while time.monotonic() - moved < 0.3:
                if writer.transport.get_write_buffer_size() < 65536:
                    writer.write(b"x" * 65536)
                    sent, moved = sent + 65536, time.monotonic()
                await asyncio.sleep(0)
            assert 0 < pair.tunnel._waiting() < 1024 * 1024
            end = await pair.over()
            assert end.why == IDLE
            assert 0 < end.to_left <= sent

    run(scene())


@WAYS
def test_silence_and_abort(run: Any, left_tls: bool, right_tls: bool) -> None:
    async def scene() -> None:
        async with joined(left_tls=left_tls, right_tls=right_tls, idle=0.1) as pair:
            assert (await pair.over()).why == IDLE
            with pytest.raises(ConnectionError):
                await pair.left[0].read()
        async with joined(left_tls=left_tls, right_tls=right_tls) as pair:
            pair.tunnel.abort()
            assert (await pair.over()).why == ABORTED
            with pytest.raises(ConnectionError):
                await pair.right[0].read()

    run(scene())


def test_a_reset_reaches_the_other_end(run: Any) -> None:
    async def scene() -> None:
        async with joined() as pair:
            sock = pair.left[1].transport.get_extra_info("socket")
            sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
            pair.left[1].transport.abort()
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(5):
                    await pair.right[0].read()
            assert (await pair.over()).why == LEFT_LOST

    run(scene())


def test_an_end_that_was_reset_while_it_was_not_read_is_told_nothing(run: Any) -> None:
    """On asyncio whoever ends the sending to it hears of the reset first."""

    async def scene() -> None:
        async with joined() as pair:
            left, (reader, right) = pair.left[1].transport, pair.right
            right.transport.pause_reading()
            left.write(b"x" * 20_000_000)
            await until(lambda: pair.tunnel._right.stuck)
            left.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
            left.abort()
            right.write_eof()
            await until(lambda: pair.tunnel._right.done)
            right.transport.resume_reading()
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(5):
                    await reader.read()
            assert (await pair.over()).why == LEFT_LOST

    run(scene())

"""Bodies of any length go through in bounded memory, as fast as the slower side; who is too slow has a bound."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import asynccontextmanager

import pytest

from tests.sidecar.proxy.ends import Client, Peer, answering, ok, read_head, until
from tests.sidecar.proxy.rig import Rig

SIZE = 50 * 2**20
PIECE = b"0123456789abcdef" * 2**14
GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"

# In each of two hops: what is kept (256 KiB) and the read that brings it there (256), what a transport takes before it
# says stop (512 with TLS) and the write that brings it there (256).
MOST = 2 * (256 + 256 + 512 + 256) * 1024


def lying(rig: Rig) -> int:
    """Bytes of bodies that lie in the proxy."""
    total = 0
    for downstream in rig.plane._open:
        total += downstream.transport.get_write_buffer_size() + downstream.reader.buffered
    for pools in (rig.plane.pools, rig.plane.app_pools):
        for pool in pools._pools.values():
            for connection in pool._open:
                total += connection.transport.get_write_buffer_size() + connection.reader.buffered
    return total


@asynccontextmanager
async def watched(rig: Rig):
    """Bytes that lie in the proxy stay bounded meanwhile."""
    most = [0]

    async def look() -> None:
        while True:
            most[0] = max(most[0], lying(rig))
            await asyncio.sleep(0)

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()
    assert 0 < most[0] <= MOST, f"{most[0]:,} bytes lay in the proxy"


async def sending(writer: asyncio.StreamWriter, chunked: bool) -> None:
    for _ in range(SIZE // len(PIECE)):
        writer.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE)
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")


def framing(chunked: bool) -> bytes:
    return b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % SIZE


async def taking(reader: asyncio.StreamReader, chunked: bool) -> int:
    """Read a body and throw it away; how long it was."""
    total = 0
    while chunked or total < SIZE:
        if chunked:
            left = int(await reader.readline(), 16)
            if not left:
                await reader.readline()
                return total
            total += left
            await reader.readexactly(left + 2)
        else:
            data = await reader.read(2**18)
            assert data
            total += len(data)
    return total


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
async def test_50_mib_up(rig, way, chunked: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"%d" % await taking(peer.reader, chunked)))

    rig.app.script = script
    client = await rig.client(way)
    async with watched(rig):
        client.write(b"PUT / HTTP/1.1\r\nHost: app\r\n", framing(chunked), b"\r\n")
        await sending(client.writer, chunked)
        assert (await client.reply()).body == b"%d" % SIZE


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
async def test_50_mib_down(rig, way, chunked: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(b"HTTP/1.1 200 OK\r\n", framing(chunked), b"\r\n")
        await sending(peer.writer, chunked)

    rig.app.script = script
    client = await rig.client(way)
    async with watched(rig):
        await client.send(GET)
        assert (await read_head(client.reader)).status == 200
        assert await taking(client.reader, chunked) == SIZE


async def test_app_that_does_not_read_stops_the_client(rig, way) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        peer.writer.transport.pause_reading()
        await go_on.wait()
        peer.writer.transport.resume_reading()
        await peer.head()
        await peer.send(ok(b"%d" % await taking(peer.reader, False)))

    rig.app.script = script
    client = await rig.client(way)
    async with watched(rig):
        client.write(b"PUT / HTTP/1.1\r\nHost: app\r\n", framing(False), b"\r\n")
        upload = asyncio.create_task(sending(client.writer, False))
        await until(lambda: any(downstream._paused for downstream in rig.plane._open))
        await asyncio.sleep(0.05)
        assert not upload.done()
        go_on.set()
        await upload
        assert (await client.reply()).body == b"%d" % SIZE


async def test_client_that_does_not_read_stops_the_app(rig, way) -> None:
    sent = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(b"HTTP/1.1 200 OK\r\n", framing(False), b"\r\n")
        await sending(peer.writer, False)
        sent.set()

    rig.app.script = script
    client = await rig.client(way)
    client.writer.transport.pause_reading()
    async with watched(rig):
        await client.send(GET)
        await until(lambda: any(downstream.stuck for downstream in rig.plane._open))
        await asyncio.sleep(0.05)
        assert not sent.is_set()
        client.writer.transport.resume_reading()
        assert (await read_head(client.reader)).status == 200
        assert await taking(client.reader, False) == SIZE


async def _narrow(rig: Rig, way: str) -> Client:
    """A client whose system takes little for it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", rig.ports[way]))
    client = Client(*await asyncio.open_connection(sock=sock, limit=4096))
    rig.clients.append(client)
    return client


async def test_pipelined_answers_do_not_pile_up_for_a_client_that_does_not_read(rig, way) -> None:
    body = PIECE[: 100 * 1024]
    rig.app.script = answering(ok(body))
    client = await _narrow(rig, way)
    client.writer.transport.pause_reading()
    async with watched(rig):
        client.write(GET * 200)
        await until(lambda: any(downstream.stuck for downstream in rig.plane._open))
        await asyncio.sleep(0.1)
        assert len(rig.app.requests) < 150
        client.writer.transport.resume_reading()
        for _ in range(200):
            assert (await client.reply()).body == body


async def test_client_that_never_reads_is_given_up(make, way) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.write(b"HTTP/1.1 200 OK\r\n", framing(False), b"\r\n")
        await sending(peer.writer, False)

    rig = await make(script, limits={"stall_timeout": 0.2})
    client = await _narrow(rig, way)
    client.writer.transport.pause_reading()
    await client.send(GET)
    await rig.settled()
    assert [end.flag for end in rig.ended] == ["DC"] * (way != "in")
    assert [end.flag for end in rig.requests_ended] == ["DC"] * (way != "out")
    await until(lambda: not rig.app.peers)


async def test_client_that_reads_slowly_is_not_given_up(make, way) -> None:
    body = PIECE * 4
    rig = await make(answering(ok(body)), limits={"stall_timeout": 0.2})
    client = await _narrow(rig, way)
    await client.send(b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
    reply = bytearray()
    begin = time.monotonic()
    while data := await client.reader.read(2**15):
        reply += data
        await asyncio.sleep(0.02)
    assert time.monotonic() - begin > 0.5
    assert reply.endswith(body)


# --- apps that misbehave ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n X: folded\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"\x00" * 100,
    ],
)
async def test_garbage_from_the_app_is_a_bad_gateway(rig, way, garbage: bytes) -> None:
    rig.app.script = answering(garbage)
    client = await rig.client(way)
    reply = await client.ask(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nok")
    assert (reply.status, reply.get(b"x-mesh-flag")) == (502, b"UPE")
    rig.app.script = answering()
    assert (await client.ask(GET)).status == 200  # the client is none the worse for it


async def test_ten_mib_of_headers_from_the_app(rig, way) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n")
        for _ in range(160):
            await peer.send(b"X: %b\r\n" % PIECE[:65536])

    rig.app.script = script
    client = await rig.client(way)
    reply = await client.ask(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n")
    assert (reply.status, reply.get(b"x-mesh-flag")) == (502, b"UPE")
    assert b"bytes" in reply.body  # which limit it was


async def test_garbage_in_the_middle_of_a_body_is_a_cut(rig, way) -> None:
    seen = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await seen.wait()
        await peer.send(b"xyz\r\n")

    rig.app.script = script
    client = await rig.client(way)
    await client.send(GET)
    assert await client.reader.readuntil(b"abc\r\n")
    seen.set()
    assert await client.rest() == b""
    await client.close()
    await rig.settled()


@pytest.mark.parametrize("leaves", [False, True])
async def test_answer_before_the_upload_is_over_is_read(rig, way, leaves: bool) -> None:
    """The client writes on, as those do that look at the answer last; it is read, not reset."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.reader.readexactly(100_000)
        await peer.send(ok(b"too much", 413, b"Connection: close\r\n" * leaves))
        if not leaves:
            await peer.rest()

    rig.app.script = script
    client = await rig.client(way)
    client.write(b"POST / HTTP/1.1\r\nHost: app\r\n", framing(False), b"\r\n")
    upload = asyncio.create_task(sending(client.writer, False))
    reply = await client.reply()
    assert (reply.status, reply.body, reply.get(b"connection")) == (413, b"too much", b"close")
    assert await client.rest() == b""
    upload.cancel()
    client.reset()
    await rig.settled()


async def test_good_answer_before_the_upload_is_over_lets_it_go_on(rig, way) -> None:
    counted = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"begun"))
        counted.set_result(await taking(peer.reader, False))

    rig.app.script = script
    client = await rig.client(way)
    client.write(b"POST / HTTP/1.1\r\nHost: app\r\n", framing(False), b"\r\n")
    assert (await client.reply()).body == b"begun"
    await sending(client.writer, False)
    assert await counted == SIZE


# --- clients that are slow --------------------------------------------------------------------------------


async def test_slow_heads_are_told_so(make, way) -> None:
    rig = await make(limits={"head_timeout": 0.1})
    client = await rig.client(way)

    async def drip() -> None:
        for value in b"GET / HTTP/1.1\r\nHost: app\r\nX: " + b"y" * 1000:
            client.write(bytes([value]))
            await asyncio.sleep(0.01)

    dripping = asyncio.create_task(drip())
    reply = await client.reply()
    assert (reply.status, reply.get(b"connection")) == (408, b"close")
    assert b"0.1 s" in reply.body
    assert await client.rest() == b""
    dripping.cancel()
    await client.close()
    await rig.settled()
    assert not rig.app.requests
    assert rig.plane.refusals["inbound" if way == "in" else "outbound", "slow"] == 1


async def test_time_for_a_head_begins_with_its_first_byte(make, way) -> None:
    rig = await make(limits={"head_timeout": 0.2})
    client = await rig.client(way)
    for _ in range(2):
        await asyncio.sleep(0.25)
        client.write(GET[:20])
        await asyncio.sleep(0.02)
        assert (await client.ask(GET[20:])).status == 200


async def test_slow_head_behind_a_request(make, way) -> None:
    rig = await make(limits={"head_timeout": 0.1, "idle_timeout": 30.0})
    client = await rig.client(way)
    assert (await client.ask(GET, GET[:20])).status == 200
    assert (await client.reply()).status == 408


async def test_slow_bodies_are_told_so(make, way) -> None:
    rig = await make(limits={"stall_timeout": 0.1})
    for asked in (b"Content-Length: 9\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"):
        client = await rig.client(way)
        reply = await client.ask(b"POST / HTTP/1.1\r\nHost: app\r\n", asked)
        assert (reply.status, reply.get(b"connection")) == (408, b"close")
        assert await client.rest() == b""
        await client.close()
    await rig.settled()
    await until(lambda: not rig.app.peers)
    assert rig.plane.refusals["inbound" if way == "in" else "outbound", "slow"] == 2


async def test_faulty_bodies_are_told_so_at_once(rig, way) -> None:
    client = await rig.client(way)
    await client.send(b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    await until(lambda: bool(rig.app.peers))
    assert (await client.ask(b"none\r\n")).status == 400
    await client.close()
    await rig.settled()
    assert not rig.app.requests


async def test_idle_connections_are_closed_without_a_word(make, way) -> None:
    rig = await make(limits={"idle_timeout": 0.1})
    client, silent = await rig.client(way), await rig.client(way)
    assert (await client.ask(GET)).status == 200
    assert await client.rest() == b""
    assert await silent.rest() == b""
    await rig.settled()


async def test_client_that_leaves_while_the_app_does_not_read(make, way) -> None:
    async def script(peer: Peer) -> None:
        peer.writer.transport.pause_reading()
        await asyncio.sleep(60)

    rig = await make(script, limits={"stall_timeout": 0.1})
    client = await rig.client(way)
    client.write(b"PUT / HTTP/1.1\r\nHost: app\r\n", framing(False), b"\r\n")
    upload = asyncio.create_task(sending(client.writer, False))
    await until(lambda: any(downstream._paused for downstream in rig.plane._open))
    await asyncio.sleep(0.3)
    assert rig.plane.in_flight == 1 + (way == "pair")  # who waits for the app is not slow
    upload.cancel()
    client.reset()  # a FIN would wait behind what we do not read
    await rig.settled()

"""An app that answers before it has read the request: its answer is heard, what it reads on comes, nobody is left."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.sidecar.proxy.ends import Client, Peer, Script, ok, read_head, until
from tests.sidecar.proxy.rig import Rig, plan
from tests.sidecar.proxy.test_streaming import SIZE, framing, sending, taking

CHUNKED = b"HTTP/1.1 %d Whatever\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n0\r\n\r\n"

both_framings = pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not stop sending is read for a shorter time than it would be."""
    monkeypatch.setattr("meshsdk_sidecar.proxy.downstream.LINGER", 0.3)


def head(chunked: bool, *fields: bytes) -> bytes:
    return b"".join((b"POST / HTTP/1.1\r\nHost: app\r\n", *fields, framing(chunked), b"\r\n"))


async def uploading(client: Client, chunked: bool) -> None:
    """Send the body as long as somebody takes it."""
    with contextlib.suppress(OSError):
        await sending(client.writer, chunked)


def held(port: int) -> int:
    """Sockets of this process that are connected to `port`; those closed already, whose bytes the system still sends,
    belong to nobody: their inode is 0.
    """
    rows = [row.split() for row in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(int(row[2].partition(":")[2], 16) == port and row[9] != "0" for row in rows)


async def let_go(rig: Rig, client: Client) -> None:
    """Nothing is left, though the app may not have noticed."""
    client.reset()
    await until(lambda: not held(rig.app.port))
    await rig.settled()


def early(reply: bytes, then: str) -> Script:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(reply)
        if then == "reads":
            await peer.rest()
        elif then == "shuts":
            peer.writer.write_eof()
        if then != "closes":  # which is a reset, as more has come
            await asyncio.sleep(60)

    return script


@both_framings
@pytest.mark.parametrize("then", ["reads", "stays", "shuts", "closes"])
async def test_no_is_heard_and_ends_it(rig: Rig, way: str, chunked: bool, then: str) -> None:
    status = 400 if chunked else 413
    rig.app.script = early(CHUNKED % status if chunked else ok(b"early", status), then)
    client = await rig.client(way)
    client.write(head(chunked))
    upload = asyncio.create_task(uploading(client, chunked))
    reply = await client.reply()
    assert (reply.status, reply.body, reply.get(b"connection")) == (status, b"early", b"close")
    with contextlib.suppress(ConnectionResetError):  # it was asked to stop sending, and does not
        assert await client.rest() == b""
    upload.cancel()
    await let_go(rig, client)


@both_framings
@pytest.mark.parametrize("then", ["shuts", "closes"])
async def test_yes_of_an_app_that_closes_is_heard(rig: Rig, way: str, chunked: bool, then: str) -> None:
    """The connection may be kept: the second sidecar drops what the app does not read, the first has sent it all."""
    rig.app.script = early(ok(b"early", 200, b"Connection: close\r\n" * chunked), then)
    client = await rig.client(way)
    client.write(head(chunked))
    upload = asyncio.create_task(uploading(client, chunked))
    reply = await client.reply()
    assert (reply.status, reply.body) == (200, b"early")
    upload.cancel()
    await let_go(rig, client)


@both_framings
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "begun"])
async def test_yes_leaves_the_rest_to_come(rig: Rig, way: str, chunked: bool, whole: bool) -> None:
    """The client reads its answer last, as most do; the app has all that was sent, and another request follows."""
    counted: list[int] = []

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"early")[: None if whole else -5])
        counted.append(await taking(peer.reader, chunked) if chunked else len(await peer.reader.readexactly(SIZE)))
        await peer.send(b"" if whole else b"early")
        await peer.request()
        await peer.send(ok(b"next"))

    rig.app.script = script
    client = await rig.client(way)
    client.write(head(chunked))
    await sending(client.writer, chunked)
    reply = await client.reply()
    assert (reply.body, reply.get(b"connection")) == (b"early", None)
    assert (await client.ask(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")).body == b"next"
    assert counted == [SIZE]
    client.reset()
    await rig.settled()


@pytest.mark.parametrize("status", [200, 413])
async def test_answer_to_whether_to_send_at_all_is_the_last_word(rig: Rig, way: str, status: int) -> None:
    rig.app.script = early(ok(b"early", status), "reads")
    client = await rig.client(way)
    reply = await client.ask(head(False, b"Expect: 100-continue\r\n"))
    assert (reply.status, reply.body, reply.get(b"connection")) == (status, b"early", b"close")
    assert await asyncio.wait_for(client.rest(), 5) == b""
    await let_go(rig, client)


async def test_app_echoes_as_it_reads(rig: Rig, way: str) -> None:
    """Both directions are full at the same time."""

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.write(b"HTTP/1.1 200 OK\r\n", framing(False), b"\r\n")
        while data := await peer.reader.read(2**18):
            await peer.send(data)

    rig.app.script = script
    client = await rig.client(way)
    client.write(head(False))
    upload = asyncio.create_task(sending(client.writer, False))
    assert (await read_head(client.reader)).status == 200
    assert await taking(client.reader, False) == SIZE
    await upload


async def test_deadline_of_an_upload_whose_client_has_left_stops_no_other(make) -> None:
    """Its connection is not read while nobody takes more, so that it left is heard where it is answered."""

    async def script(peer: Peer) -> None:
        peer.writer.transport.pause_reading()
        await asyncio.sleep(60)

    rig = await make(script, policy=plan(timeouts={"request": 0.5, "attempt": 0.0}))
    gone, others = await rig.client(), [await rig.client() for _ in range(5)]
    gone.write(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 50000000\r\n\r\n", b"x" * 20_000_000)
    for other in others:
        other.write(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
    await until(lambda: any(downstream._paused for downstream in rig.plane._open))
    gone.writer.transport.abort()
    begun = rig.plane.clock()
    for other in others:
        assert (await other.reply()).status == 504
        await other.close()
    assert rig.plane.clock() - begun < 1.0
    await rig.settled()

"""Upgrades and CONNECT: from the answer on, bytes go both ways as they are."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.sidecar.proxy.ends import Message, Peer, echoing, serving, until

ASKED = b"GET /ws HTTP/1.1\r\nHost: app\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nX: y\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Back: 1\r\n\r\n"


async def _switching(peer: Peer) -> None:
    """Agree, speak first, and say everything twice."""
    await peer.request()
    await peer.send(SWITCHING, b"hello ")
    while data := await peer.reader.read(65536):
        await peer.send(data, data)
    await peer.send(b"bye")


async def _until_end(client) -> bytes:
    return await asyncio.wait_for(client.rest(), 5)


async def test_upgrade_is_a_tunnel_both_ways(rig, way) -> None:
    rig.app.script = _switching
    client = await rig.client(way)
    reply = await client.ask(ASKED, b"GET /early")  # the new protocol's first bytes, sent along
    assert reply.line == b"HTTP/1.1 101 Switching Protocols"
    assert reply.get(b"upgrade") == b"websocket"
    assert reply.get(b"connection") == b"Upgrade"
    assert reply.get(b"x-back") == b"1"
    assert rig.app.requests[0].get(b"upgrade") == b"websocket"
    assert await client.reader.readexactly(26) == b"hello GET /earlyGET /early"
    assert rig.plane.in_flight == 1 + (way == "pair")
    await client.send(b"x")
    assert await client.reader.readexactly(2) == b"xx"
    client.writer.write_eof()
    assert await _until_end(client) == b"bye"
    await client.close()
    await rig.settled()
    assert len(rig.ended) == (way != "in")
    assert not rig.ended or (rig.ended[0].status, rig.ended[0].flag) == (101, "")


async def test_tunnel_that_the_app_ends_is_over_at_once(rig, way) -> None:
    """As a WebSocket's: the server closes once both have said goodbye, and the client waits (RFC 6455, 7.1.1)."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(SWITCHING)
        await peer.send(b"re: ", await peer.reader.readexactly(7))

    rig.app.script = script
    client = await rig.client(way)
    await client.ask(ASKED, b"goodbye")
    begun = rig.plane.clock()
    assert await _until_end(client) == b"re: goodbye"
    assert rig.plane.clock() - begun < 0.7  # and waits for nothing
    await client.close()
    await rig.settled()
    assert all(end.flag == "" for end in rig.ended)


async def test_tunnel_that_the_client_breaks_off(rig, way) -> None:
    rig.app.script = _switching
    client = await rig.client(way)
    await client.ask(ASKED)
    client.reset()
    await rig.settled()
    await until(lambda: not rig.app.peers)


async def test_tunnel_that_the_app_breaks_off(rig, way) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(SWITCHING)
        await peer.reader.read(1)
        peer.reset()

    rig.app.script = script
    client = await rig.client(way)
    await client.ask(ASKED, b"x")
    with pytest.raises(ConnectionResetError):
        await _until_end(client)
    await client.close()
    await rig.settled()


async def test_tunnels_outlast_a_drain_that_waits_and_not_one_that_does_not(rig) -> None:
    rig.app.script = _switching
    client, idle = await rig.client("in"), await rig.client("in")
    await client.ask(ASKED)
    await until(lambda: len(rig.plane._open) == 2)
    for downstream in tuple(rig.plane._open):
        downstream.drain()
    assert await idle.rest() == b""
    await client.send(b"x")
    assert await client.reader.readexactly(8) == b"hello xx"
    await rig.plane.close(0.05)
    assert await client.closed()
    assert not rig.plane._open


async def test_declined_upgrade_is_an_ordinary_answer(rig, way) -> None:
    client = await rig.client(way)
    client.write(ASKED, b"GET /next HTTP/1.1\r\nHost: app\r\n\r\n", ASKED)
    for target in (b"/ws", b"/next", b"/ws"):
        assert (await client.reply()).body == b"GET %b " % target
    assert rig.app.connections == 1


async def test_declined_upgrade_with_much_behind_it(rig, way) -> None:
    client = await rig.client(way)
    body = b"x" * 1_000_000
    client.write(ASKED, b"PUT /next HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n" % len(body), body)
    assert (await client.reply()).body == b"GET /ws "
    assert (await client.reply()).body == b"PUT /next " + body


async def test_what_is_behind_a_declined_upgrade_may_be_no_request(rig, way) -> None:
    client = await rig.client(way)
    client.write(ASKED, b"\x81\x05hello\r\n\r\n")
    assert (await client.reply()).status == 200
    assert (await client.reply()).status == 400
    assert await client.rest() == b""


async def test_client_that_asks_for_an_upgrade_and_goes(rig, way) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.reader.read()

    rig.app.script = script
    client = await rig.client(way)
    await client.send(ASKED)
    await until(lambda: rig.app.requests != [])
    client.reset()
    await rig.settled()


async def test_h2c_is_not_asked_for(rig, way) -> None:
    client = await rig.client(way)
    reply = await client.ask(
        b"GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMA\r\n\r\n"
    )
    assert reply.status == 200
    assert {b"upgrade", b"connection", b"http2-settings"}.isdisjoint(rig.app.requests[0].names)


@pytest.mark.parametrize("asked", [b"GET / HTTP/1.1\r\nHost: app\r\n\r\n", ASKED.replace(b"1.1", b"1.0")])
async def test_upgrade_that_nobody_asked_for_is_a_bad_reply(rig, way, asked: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(SWITCHING, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")

    rig.app.script = script
    client = await rig.client(way)
    assert (await client.ask(asked)).status == 502
    await client.close()
    await rig.settled()


# --- CONNECT ----------------------------------------------------------------------------------------------


async def _connected(rig, port: int, *then: bytes) -> tuple[object, Message]:
    client = await rig.client()
    reply = b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (port, port)
    await client.send(reply, *then)
    lines = (await client.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    return client, Message(lines[0], [])


async def test_connect_reaches_hosts_outside(rig) -> None:
    async with serving(echoing) as outside:
        asked = b"GET /%b HTTP/1.1\r\nHost: payments\r\n\r\n"
        client, reply = await _connected(rig, outside.port, asked % b"early")
        assert reply.line == b"HTTP/1.1 200 Connection established"
        assert (await client.reply()).body == b"GET /early "
        assert (await client.ask(asked % b"late")).body == b"GET /late "
        await client.close()
        await rig.settled()
    assert [(end.service, end.status, end.flag) for end in rig.ended] == [("egress", 200, "")]


async def test_connect_to_a_server_that_speaks_first_and_closes(rig) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"220 ready\r\n")

    async with serving(script) as outside:
        client, _ = await _connected(rig, outside.port)
        assert await _until_end(client) == b"220 ready\r\n"
        await client.close()
        await rig.settled()


async def test_connect_to_nobody(rig) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        client = await rig.client()
        port = closed.getsockname()[1]
        for _ in range(2):  # the connection goes on
            reply = await client.ask(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % port)
            assert (reply.status, reply.get(b"x-mesh-flag")) == (503, b"UF")
            assert b"refused" in reply.body
    assert all(end.attempts == 2 for end in rig.ended)


@pytest.mark.parametrize(
    ("target", "status", "words"),
    [
        (b"app:80", 403, b"called by http://app/"),
        (b"app.mesh:443", 403, b"called by http://app/"),
        (b"a.b.mesh:443", 400, b"write b.mesh"),
        (b"app", 400, b"no port"),
    ],
)
async def test_connect_to_the_mesh_is_refused_with_words(rig, target: bytes, status: int, words: bytes) -> None:
    client = await rig.client()
    reply = await client.ask(b"CONNECT %b HTTP/1.1\r\nHost: app\r\n\r\n" % target)
    assert reply.status == status
    assert words in reply.body
    assert not rig.app.requests


async def test_connect_to_the_sidecar_itself_would_come_back(rig) -> None:
    client = await rig.client()
    reply = await client.ask(b"CONNECT localhost:%d HTTP/1.1\r\nHost: x\r\n\r\n" % rig.ports["out"])
    assert reply.status == 421


async def test_connect_leads_into_no_service(rig) -> None:
    client = await rig.client("in")
    client.write(b"CONNECT app:80 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /a HTTP/1.1\r\nHost: app\r\n\r\n")
    assert (await client.reply()).status == 501
    assert (await client.reply()).body == b"GET /a "


async def test_client_that_connects_and_goes(rig) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        client = await rig.client()
        await client.send(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % full.getsockname()[1])
        await until(lambda: rig.plane.in_flight == 1)
        client.reset()
        await rig.settled()
        for filler in fillers:
            filler.close()
    assert [end.flag for end in rig.ended] == ["DC"]


async def test_hosts_outside_keep_their_connections(rig) -> None:
    async with serving() as one, serving() as two:
        client = await rig.client()
        for number in range(6):
            outside = (one, two)[number % 2]
            asked = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % outside.port
            assert (await client.ask(asked)).body == b"GET / "
        assert (one.connections, two.connections) == (1, 1)

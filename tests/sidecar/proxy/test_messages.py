"""What the proxy makes of messages: each is framed anew for its next connection, and says the same."""

from __future__ import annotations

import asyncio

import pytest

from tests.sidecar.proxy.ends import LONG, Cut, Peer, answering, ok

GET = b"GET /a HTTP/1.1\r\nHost: app\r\n\r\n"


async def test_keep_alive_uses_one_connection_each_way(rig, way) -> None:
    client = await rig.client(way)
    for number in range(3):
        reply = await client.ask(b"GET /%d HTTP/1.1\r\nHost: app\r\n\r\n" % number)
        assert (reply.status, reply.body) == (200, b"GET /%d " % number)
        assert reply.get(b"connection") is None
    assert rig.app.connections == 1


async def test_a_hundred_requests_in_one_write_are_answered_in_order(rig, way) -> None:
    client = await rig.client(way)
    shapes = [
        b"GET /%d HTTP/1.1\r\nHost: app\r\n\r\n",
        b"PUT /%d HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\n\r\nbody",
        b"PUT /%d HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
    ]
    client.write(*(shapes[number % 3] % number for number in range(100)))
    for number in range(100):
        reply = await client.reply()
        wanted = b"GET /%d " % number if not number % 3 else b"PUT /%d body" % number
        assert reply.body == wanted


async def test_more_pipelined_requests_than_are_kept(rig) -> None:
    client = await rig.client()
    client.write(*(b"GET /%d HTTP/1.1\r\nHost: app\r\n\r\n" % number for number in range(1000)))
    for number in range(1000):
        assert (await client.reply()).body == b"GET /%d " % number


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (b"GET / HTTP/1.0\r\nHost: app\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nHost: app\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n", False),
    ],
)
async def test_connection_lasts_as_the_client_asked(rig, way, asked: bytes, kept: bool) -> None:
    client = await rig.client(way)
    reply = await client.ask(asked)
    assert reply.body == b"GET / "
    assert rig.app.requests[0].line == b"GET / HTTP/1.1"
    if kept:
        assert reply.get(b"connection") == b"keep-alive"
        assert (await client.ask(asked)).status == 200
    else:
        assert reply.get(b"connection") in ({None, b"close"} if b"1.0" in asked else {b"close"})
        assert await client.rest() == b""
    assert rig.app.connections == 1


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", b"1234"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", None),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n", b"77"),
    ],
)
async def test_replies_without_a_body(rig, way, method: bytes, answer: bytes, length: bytes | None) -> None:
    rig.app.script = answering(answer)
    client = await rig.client(way)
    for _ in range(2):
        reply = await client.ask(method + b" / HTTP/1.1\r\nHost: app\r\n\r\n", method=method)
        assert reply.get(b"content-length") == length
        assert reply.get(b"transfer-encoding") is None
    assert rig.app.connections == 1


async def test_chunks_and_trailers_go_both_ways(rig, way) -> None:
    rig.app.script = answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"3;ext=1\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 7\r\nConnection: close\r\nHost: x\r\nTrailer: y\r\n\r\n"
    )
    client = await rig.client(way)
    for _ in range(2):
        reply = await client.ask(
            b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\na\r\n2;x=y\r\nbc\r\n0\r\nX-Up: 1\r\nAuthorization: x\r\n\r\n"
        )
        assert (reply.body, reply.framing, reply.trailers) == (b"abcdefg", "chunked", [(b"X-Sum", b"7")])
        asked = rig.app.requests[-1]
        assert (asked.body, asked.framing, asked.trailers) == (b"abc", "chunked", [(b"X-Up", b"1")])


async def test_chunks_in_pieces_go_on_as_they_come(rig, way) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for letter in b"abc":
            await peer.send(b"1\r\n%c\r\n" % letter)
            await peer.app.turn.wait()
            peer.app.turn.clear()
        await peer.send(b"0\r\n\r\n")

    rig.app.script, rig.app.turn = script, asyncio.Event()
    client = await rig.client(way)
    await client.send(GET)
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert b"chunked" in head
    for letter in b"abc":
        assert await client.reader.readexactly(6) == b"1\r\n%c\r\n" % letter  # before the next was sent
        rig.app.turn.set()
    assert await client.reader.readexactly(5) == b"0\r\n\r\n"


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_replies_that_end_with_the_connection(rig, way, version: bytes, pieces: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(pieces):
            await peer.send(b"piece")
            await asyncio.sleep(0.01)

    rig.app.script = script
    client = await rig.client(way)
    reply = await client.ask(b"GET / HTTP/%b\r\nHost: app\r\n\r\n" % version)
    assert reply.body == b"piece" * pieces
    assert reply.framing == ("chunked" if version == b"1.1" else "eof")
    if version == b"1.1":  # whose connection has nothing to do with the app's
        assert (await client.ask(GET)).body == b"piece" * pieces


async def test_chunks_to_a_client_of_http_1_0_end_with_the_connection(rig, way) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await asyncio.sleep(0.01)
        await peer.send(b"3\r\ndef\r\n0\r\nX: y\r\n\r\n")

    rig.app.script = script
    client = await rig.client(way)
    reply = await client.ask(b"GET / HTTP/1.0\r\nHost: app\r\nConnection: keep-alive\r\n\r\n")
    assert (reply.body, reply.framing, reply.get(b"transfer-encoding")) == (b"abcdef", "eof", None)


# --- Expect and interim replies ---------------------------------------------------------------------------


async def _continuing(peer: Peer) -> None:
    while True:
        head = await peer.head()
        if head.get(b"expect"):
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await peer.reader.readexactly(int(head.get(b"content-length") or b"0"))
        await peer.send(ok(body))


async def test_the_app_says_whether_to_continue(rig, way) -> None:
    rig.app.script = _continuing
    client = await rig.client(way)
    for _ in range(2):
        await client.send(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.reply()).status == 100
        assert (await client.ask(b"body")).body == b"body"


async def test_clients_of_http_1_0_are_told_no_interim_reply(rig, way) -> None:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        assert request.get(b"expect") is None
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", ok())

    rig.app.script = script
    client = await rig.client(way)
    head = b"POST / HTTP/1.0\r\nHost: app\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    assert (await client.ask(head, b"body")).status == 200


@pytest.mark.parametrize("status", [417, 401, 413])
async def test_an_app_that_refuses_unread(rig, way, status: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(ok(b"no", status))
        await peer.reader.read()

    rig.app.script = script
    client = await rig.client(way)
    reply = await client.ask(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
    assert (reply.status, reply.body, reply.get(b"connection")) == (status, b"no", b"close")
    assert await client.rest() == b""
    await client.close()
    await rig.settled()


async def test_interim_replies_are_passed_on(rig, way) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X\r\nX: 1\r\nContent-Length: 9\r\n\r\n"
    rig.app.script = answering(b"HTTP/1.1 102 Processing\r\n\r\n" + hints + ok(b"whole"))
    client = await rig.client(way)
    for _ in range(2):
        assert (await client.ask(GET)).line == b"HTTP/1.1 102 Processing"
        reply = await client.reply()
        assert (reply.line, reply.fields) == (b"HTTP/1.1 103 Early Hints", [(b"Link", b"</a>")])
        assert (await client.reply()).body == b"whole"


async def test_nobody_who_did_not_ask_is_told_to_continue(rig, way) -> None:
    rig.app.script = answering(b"HTTP/1.1 100 Continue\r\n\r\n" + ok())
    client = await rig.client(way)
    assert (await client.ask(GET)).status == 200


# --- fields -----------------------------------------------------------------------------------------------


async def test_fields_keep_case_and_order_and_those_of_one_connection_come_off(rig, way) -> None:
    reply = (
        b"HTTP/1.1 201 Made It\r\nX-Second: 1\r\nSET-cookie: a\r\nSet-Cookie: b\r\nKeep-Alive: timeout=5\r\n"
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nProxy-Authenticate: Basic\r\nContent-Length: 2\r\n"
        b"last: \r\n\r\nok"
    )
    rig.app.script = answering(reply)
    client = await rig.client(way)
    got = await client.ask(
        b"GET /p?q=a HTTP/1.1\r\nX-b: 1\r\nhOST: app\r\nx-A: 2\r\nX-b: 3\r\nConnection: X-Gone, keep-alive\r\n"
        b"X-GONE: 1\r\nKeep-Alive: 9\r\nTE: trailers\r\nProxy-Connection: x\r\nProxy-Authorization: y\r\n"
        b"TRAIL: 4\r\n\r\n"
    )
    asked = rig.app.requests[0]
    ours = {b"x-envoy-expected-rq-timeout-ms"}
    assert [pair for pair in asked.fields if pair[0] not in ours] == [
        (b"X-b", b"1"), (b"hOST", b"app"), (b"x-A", b"2"), (b"X-b", b"3"), (b"TRAIL", b"4"),
    ]  # fmt: skip
    assert asked.line == b"GET /p?q=a HTTP/1.1"
    assert got.line == b"HTTP/1.1 201 Made It"
    assert got.fields == [
        (b"X-Second", b"1"), (b"SET-cookie", b"a"), (b"Set-Cookie", b"b"), (b"Content-Length", b"2"), (b"last", b""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        (b"http://app/a?b", b"/a?b"), (b"http://app", b"/"), (b"HTTP://app?x=/y", b"/?x=/y"), (b"http://app:80/", b"/"),
    ],
)  # fmt: skip
async def test_absolute_targets_name_the_service_and_come_in_origin_form(
    rig, way, target: bytes, origin: bytes
) -> None:
    client = await rig.client(way)
    assert (await client.ask(b"GET %b HTTP/1.1\r\nHost: other\r\n\r\n" % target)).status == 200
    asked = rig.app.requests[0]
    assert asked.target == origin
    assert asked.all(b"host") == [target.partition(b"//")[2].partition(b"/")[0].partition(b"?")[0]]


async def test_options_of_a_whole_server(rig) -> None:
    client = await rig.client()
    for target in (b"*", b"http://app"):
        assert (await client.ask(b"OPTIONS %b HTTP/1.1\r\nHost: app\r\n\r\n" % target)).status == 200
        assert rig.app.requests[-1].target == b"*"


async def test_http_1_0_without_a_host_is_given_one_where_there_is_one_service(make) -> None:
    rig = await make()
    for way, host in (("in", b"web"), ("up", b"app")):
        client = await rig.client(way)
        assert (await client.ask(b"GET / HTTP/1.0\r\nX: y\r\n\r\n")).status == 200
        assert rig.app.requests[-1].all(b"host") == [host]
    client = await rig.client("out")
    assert (await client.ask(b"GET / HTTP/1.0\r\nX: y\r\n\r\n")).status == 400


async def test_half_a_body_is_no_whole_one(rig, way) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n", peer.app.framing, b"\r\n\r\n", peer.app.half)
        await asyncio.sleep(0.01)
        if peer.app.framing.startswith(b"Connection"):
            peer.reset()

    rig.app.script = script
    for framing, half in (
        (b"Content-Length: %d" % LONG, b"half"),
        (b"Transfer-Encoding: chunked", b"4\r\nhalf\r\n"),
        (b"Connection: close", b"half"),
    ):
        for version in (b"1.1", b"1.0"):
            rig.app.framing, rig.app.half = framing, half
            client = await rig.client(way)
            with pytest.raises((Cut, ConnectionError)):
                await client.ask(b"GET / HTTP/%b\r\nHost: app\r\n\r\n" % version)
            await client.close()
    await rig.settled()

"""What users of httpx and httpx2 expect of a transport below their client, in every colour and on every engine."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import brotli
import httpx
import httpx2
import pytest
import zstandard

from meshsdk.client import AsyncMeshTransport, async_client, client
from meshsdk.errors import ConfigError, MeshError
from tests.client.colours import ONCE, QUICK, Blocking, Colour, Mesh
from tests.wire.scripted import LONG, Peer, Server, after_request, answering, deaf_port, eventually, reply

Serve = Callable[..., Server]

URL = "http://payments/"
HALF = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\nhalf" % LONG
PATIENT = replace(ONCE, timeouts=replace(ONCE.timeouts, request=10.0, attempt=10.0, connect=5.0, idle=10.0))


def chunked(*pieces: bytes, fields: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n%b\r\n%b0\r\n\r\n" % (fields, body)


# --- the reply ----------------------------------------------------------------------------------------


async def test_facts_of_a_reply(colour: Colour, serve: Serve) -> None:
    server = serve(answering(b"HTTP/1.1 200 Quite Fine\r\ncontent-length: 2\r\nX-Odd-Case: Y\r\n\r\nok"))
    async with colour.client(Mesh(server)) as http:
        response = await http.begin("GET", URL)
        with pytest.raises(RuntimeError, match="elapsed"):
            _ = response.elapsed
        with pytest.raises(colour.httpx.ResponseNotRead):
            _ = response.content
        assert (response.is_closed, response.is_stream_consumed) == (False, False)
        await colour.read(response)
        assert (response.is_closed, response.is_stream_consumed) == (True, True)
        assert response.elapsed.total_seconds() > 0
    assert isinstance(response, colour.httpx.Response)
    assert response.request.url == URL
    assert (response.http_version, response.reason_phrase) == ("HTTP/1.1", "Quite Fine")
    assert response.extensions["http_version"] == b"HTTP/1.1"
    assert response.extensions["reason_phrase"] == b"Quite Fine"
    assert (b"X-Odd-Case", b"Y") in response.headers.raw
    assert response.num_bytes_downloaded == 2


async def test_a_server_that_speaks_http_1_0(colour: Colour, serve: Serve) -> None:
    server = serve(after_request(lambda peer: peer.send(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")))
    async with colour.client(Mesh(server)) as http:
        response = await http.get(URL)
    assert (response.http_version, response.text) == ("HTTP/1.0", "until the end")


async def test_the_connection_underneath(colour: Colour, serve: Serve) -> None:
    server = serve(answering())
    async with colour.client(Mesh(server)) as http:
        response = await http.begin("GET", URL)
        stream = response.extensions["network_stream"]
        assert tuple(stream.get_extra_info("server_addr")) == ("127.0.0.1", server.port)
        assert stream.get_extra_info("client_addr")[0] == "127.0.0.1"
        assert stream.get_extra_info("ssl_object") is None
        await colour.close(response)


async def test_an_upgrade_hands_the_connection_over(colour: Colour, serve: Serve) -> None:
    def echo(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nwelcome")
        while data := peer.sock.recv(100):
            peer.send(data.upper())

    server = serve(echo)
    mesh = Mesh(server)
    async with colour.client(mesh) as http:
        response = await http.begin("GET", URL, headers={"connection": "upgrade", "upgrade": "echo"})
        assert response.status_code == 101
        stream = response.extensions["network_stream"]
        assert await colour.network(stream, "read", 7) == b"welcome"
        await colour.network(stream, "write", b"hello")
        assert await colour.network(stream, "read", 100) == b"HELLO"
        await colour.network(stream, "write", bytearray(b"again"))
        assert await colour.network(stream, "read", 100) == b"AGAIN"
        await colour.network(stream, "close")
        await colour.close(response)
    mesh.assert_at_rest()
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)


@pytest.mark.parametrize("status", [204, 304])
async def test_replies_without_a_body(colour: Colour, serve: Serve, status: int) -> None:
    server = serve(answering(b"HTTP/1.1 %d None\r\netag: x\r\n\r\n" % status))
    mesh = Mesh(server)
    async with colour.client(mesh) as http:
        for _ in range(2):
            response = await http.get(URL)
            assert (response.status_code, response.content) == (status, b"")
    assert server.connections == 1
    mesh.assert_at_rest()


async def test_head(colour: Colour, serve: Serve) -> None:
    server = serve(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"))
    async with colour.client(Mesh(server)) as http:
        for _ in range(2):
            response = await http.request("HEAD", URL)
            assert response.headers["content-length"] == "1000"
            assert response.content == b""
    assert server.connections == 1


# --- streaming ----------------------------------------------------------------------------------------


async def test_streaming(colour: Colour, serve: Serve) -> None:
    text = b"one\ntwo\r\nthree"
    server = serve(answering(chunked(text[:5], text[5:])))
    async with colour.client(Mesh(server)) as http:
        assert b"".join(await colour.pieces(await http.begin("GET", URL), "raw")) == text
        assert b"".join(await colour.pieces(await http.begin("GET", URL), "bytes")) == text
        assert await colour.pieces(await http.begin("GET", URL), "bytes", 4) == [b"one\n", b"two\r", b"\nthr", b"ee"]
        assert "".join(await colour.pieces(await http.begin("GET", URL), "text")) == text.decode()
        response = await http.begin("GET", URL)
        assert await colour.pieces(response, "lines") == ["one", "two", "three"]
        assert response.num_bytes_downloaded == len(text)
        with pytest.raises(colour.httpx.StreamConsumed):
            await colour.pieces(response, "raw")
    assert server.connections == 1, "each was read to its end"


async def test_reading_what_was_closed(colour: Colour, serve: Serve) -> None:
    mesh = Mesh(serve(answering(reply(b"hello"))))
    async with colour.client(mesh) as http:
        response = await http.begin("GET", URL)
        await colour.close(response)
        assert response.is_closed
        with pytest.raises(colour.httpx.StreamClosed):
            await colour.read(response)
    mesh.assert_at_rest()


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("br", brotli.compress),
        ("zstd", zstandard.compress),
    ],
)
async def test_decompression(colour: Colour, serve: Serve, encoding: str, encode: Callable[[bytes], bytes]) -> None:
    text = b"compressible " * 1000
    packed = encode(text)
    server = serve(answering(reply(packed, fields=b"content-encoding: %b\r\n" % encoding.encode())))
    async with colour.client(Mesh(server)) as http:
        response = await http.get(URL)
        assert response.content == text
        assert response.num_bytes_downloaded == len(packed)
        assert b"".join(await colour.pieces(await http.begin("GET", URL), "raw")) == packed
    assert encoding.encode() in server.heads[0].lower().partition(b"accept-encoding:")[2]


async def test_what_cannot_be_decoded_is_told_and_the_slot_is_free(colour: Colour, serve: Serve) -> None:
    mesh = Mesh(serve(answering(reply(b"no gzip at all", fields=b"content-encoding: gzip\r\n"))))
    async with colour.client(mesh) as http:
        with pytest.raises(colour.httpx.DecodingError):
            await http.get(URL)
    mesh.assert_at_rest()


# --- redirects, auth, cookies, hooks ------------------------------------------------------------------


async def test_a_redirect_that_keeps_the_body(colour: Colour, serve: Serve) -> None:
    server = serve(answering(reply(b"", 307, b"location: /there\r\n"), reply(b"arrived")))
    async with colour.client(Mesh(server), follow_redirects=True) as http:
        response = await http.request("POST", URL, content=b"parcel")
    assert response.text == "arrived"
    assert server.bodies == [b"parcel", b"parcel"]


async def test_a_redirect_out_of_the_mesh_and_one_to_nowhere(colour: Colour, serve: Serve) -> None:
    outside = serve(answering(reply(b"outside")))
    away = reply(b"", 302, b"location: http://%b/x\r\n" % outside.address.encode())
    server = serve(answering(away, reply(b"", 302, b"location: https://orders/\r\n")))
    mesh = Mesh(server)
    async with colour.client(mesh, follow_redirects=True) as http:
        assert (await http.get(URL)).text == "outside"
        with pytest.raises(colour.httpx.UnsupportedProtocol, match="write http://orders") as caught:
            await http.get(URL)
    assert isinstance(caught.value, MeshError)
    assert caught.value.request.url == "https://orders/"
    mesh.assert_at_rest()


async def test_auth_that_reads_the_reply(colour: Colour, serve: Serve) -> None:
    server = serve(answering(reply(b"token-7", 401), reply(b"welcome")))

    class Reading(colour.httpx.Auth):  # type: ignore[name-defined]
        requires_response_body = True

        def auth_flow(self, request: Any) -> Any:
            response = yield request
            request.headers["authorization"] = response.text
            yield request

    mesh = Mesh(server)
    async with colour.client(mesh, auth=Reading()) as http:
        assert (await http.request("POST", URL, content=b"x")).text == "welcome"
    assert b"authorization: token-7" in server.heads[1].lower()
    assert server.bodies == [b"x", b"x"]
    mesh.assert_at_rest()


async def test_digest_auth(colour: Colour, serve: Serve) -> None:
    challenge = b'www-authenticate: Digest realm="r", nonce="n", qop="auth", algorithm=MD5\r\n'
    server = serve(answering(reply(b"", 401, challenge), reply(b"welcome")))
    async with colour.client(Mesh(server), auth=colour.httpx.DigestAuth("user", "secret")) as http:
        assert (await http.get(URL)).text == "welcome"
    assert b'Digest username="user"' in server.heads[1]


async def test_cookies_stay_with_the_service(colour: Colour, serve: Serve) -> None:
    server = serve(answering(reply(fields=b"set-cookie: a=b\r\nset-cookie: c=d; Path=/\r\n")))
    outside = serve(answering())
    async with colour.client(Mesh(server)) as http:
        response = await http.get(URL)
        assert dict(response.cookies) == {"a": "b", "c": "d"}
        await http.get(URL)
        await http.get(f"http://{outside.address}/")
    assert b"a=b; c=d" in server.heads[1]
    assert b"cookie" not in outside.heads[0].lower()


async def test_a_hook_that_raises_lets_the_reply_go(colour: Colour, serve: Serve) -> None:
    mesh = Mesh(serve(answering(reply(b"", 500))))
    hooks = {"response": [colour.hook(lambda response: response.raise_for_status())]}
    async with colour.client(mesh, event_hooks=hooks) as http:
        with pytest.raises(colour.httpx.HTTPStatusError):
            await http.get(URL)
        mesh.assert_at_rest()


async def test_a_hook_may_change_the_request(colour: Colour, serve: Serve) -> None:
    server = serve(answering())

    def sign(request: Any) -> None:
        request.headers["x-signed"] = "yes"
        request.extensions = {**request.extensions, "target": b"/elsewhere"}

    async with colour.client(Mesh(server), event_hooks={"request": [colour.hook(sign)]}) as http:
        await http.get(URL)
    assert server.heads[0].startswith(b"GET /elsewhere ")
    assert b"x-signed: yes" in server.heads[0]


# --- time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["timeout=", "extensions="])
async def test_read_timeout(colour: Colour, serve: Serve, by: str) -> None:
    mesh = Mesh(serve(after_request(Peer.stall)), plan=PATIENT)
    given: dict[str, Any] = (
        {"timeout": colour.httpx.Timeout(None, read=0.05)}
        if by == "timeout="
        else {"extensions": {"timeout": {"read": 0.05}}}
    )
    async with colour.client(mesh) as http:
        began = time.monotonic()
        with pytest.raises(colour.httpx.ReadTimeout) as caught:
            await http.get(URL, **given)
    assert time.monotonic() - began < 3
    assert caught.value.request.url == URL
    mesh.assert_at_rest()


async def test_read_timeout_in_the_body(colour: Colour, serve: Serve) -> None:
    half = after_request(lambda peer: (peer.send(HALF), peer.stall()))
    mesh = Mesh(serve(half), plan=PATIENT)
    async with colour.client(mesh) as http:
        response = await http.begin("GET", URL, timeout=0.1)
        with pytest.raises(colour.httpx.ReadTimeout) as caught:
            await colour.read(response)
        assert caught.value.request is response.request
        await colour.close(response)
    mesh.assert_at_rest()


async def test_connect_timeout(colour: Colour) -> None:
    with deaf_port() as port:
        async with colour.client(Mesh(f"127.0.0.1:{port}", plan=PATIENT)) as http:
            with pytest.raises(colour.httpx.ConnectTimeout):
                await http.get(URL, timeout=colour.httpx.Timeout(None, connect=0.05))


async def test_pool_timeout(colour: Colour, serve: Serve) -> None:
    plan = replace(PATIENT, limits=replace(PATIENT.limits, max_connections_per_endpoint=1))
    half = after_request(lambda peer: (peer.send(HALF), peer.stall()))
    mesh = Mesh(serve(half), plan=plan)
    async with colour.client(mesh) as http:
        held = await http.begin("GET", URL)
        kind = colour.httpx.PoolTimeout if colour.engine == "httpcore" else colour.httpx.TimeoutException
        with pytest.raises(kind, match="no connection came free"):
            await http.get(URL, timeout=colour.httpx.Timeout(None, pool=0.05))
        await colour.close(held)
    mesh.assert_at_rest()


async def test_write_timeout(colour: Colour, serve: Serve) -> None:
    deaf = serve(lambda peer: peer.stopped.wait(20))
    mesh = Mesh(deaf, plan=PATIENT)
    async with colour.client(mesh) as http:
        began = time.monotonic()
        with pytest.raises(colour.httpx.TimeoutException):
            await http.request("PUT", URL, content=b"x" * 32_000_000, timeout=colour.httpx.Timeout(None, write=0.05))
    assert time.monotonic() - began < 5
    mesh.assert_at_rest()


# --- two libraries ------------------------------------------------------------------------------------


async def test_a_transport_under_the_other_librarys_client(colour: Colour, serve: Serve) -> None:
    other = {httpx: httpx2, httpx2: httpx}[colour.httpx]
    mesh = Mesh(serve(answering()))
    says = rf"is for {colour.httpx.__name__} .* a client of {other.__name__}: .*transport\(library={other.__name__}\)"
    transport = colour.transport(mesh)
    if isinstance(colour, Blocking):
        with other.Client(transport=transport) as http, pytest.raises(ConfigError, match=says):
            http.get(URL)
    else:
        async with other.AsyncClient(transport=transport) as ahttp:
            with pytest.raises(ConfigError, match=says):
                await ahttp.get(URL)
    with pytest.raises(ConfigError, match=f"must be an {colour.httpx.__name__}"):
        colour.transport(mesh, egress=other.MockTransport(lambda _: None))
    mesh.assert_at_rest()


async def test_a_trace(colour: Colour, serve: Serve) -> None:
    seen: list[str] = []

    def note(event: str, info: dict[str, Any]) -> None:
        seen.append(event)

    async def anote(event: str, info: dict[str, Any]) -> None:
        seen.append(event)

    trace = note if isinstance(colour, Blocking) else anote
    async with colour.client(Mesh(serve(answering()))) as http:
        await http.get(URL, extensions={"trace": trace})
    assert "http11.send_request_headers.started" in seen
    assert seen.index("connection.connect_tcp.complete") < seen.index("http11.send_request_headers.started")
    assert "http11.receive_response_headers.complete" in seen


def test_where_no_asyncio_runs() -> None:
    transport = AsyncMeshTransport(Mesh("127.0.0.1:1").directory)
    call = transport.handle_async_request(httpx.Request("GET", URL))
    with pytest.raises(ConfigError, match=r"asyncio.*trio.*in a thread"):
        call.send(None)
    with pytest.raises(StopIteration):  # so that leaving `async with` does not hide what was said
        transport.aclose().send(None)


async def test_egress_is_the_librarys_own(colour: Colour, serve: Serve) -> None:
    seen: list[Any] = []

    def answer(request: Any) -> Any:
        seen.append(request)
        return colour.httpx.Response(200, text="outside")

    transport = colour.transport(Mesh(), egress=colour.httpx.MockTransport(answer))
    if isinstance(colour, Blocking):
        with client(transport) as http:
            assert http.get("http://example.com/").text == "outside"
    else:
        async with async_client(transport) as ahttp:
            assert (await ahttp.get("http://example.com/")).text == "outside"
    assert isinstance(seen[0], colour.httpx.Request)


# A KeyboardInterrupt ends an asyncio loop; cancellation has a file of its own.
@pytest.mark.parametrize("colour", [Blocking(httpx), Blocking(httpx, "httpcore"), Blocking(httpx2)])
async def test_interrupts_pass_and_leave_nothing(colour: Blocking, serve: Serve) -> None:
    def pieces() -> Any:
        yield b"one"
        raise KeyboardInterrupt

    mesh = Mesh(serve(answering()), plan=QUICK)
    with client(colour.transport(mesh)) as http, pytest.raises(KeyboardInterrupt):
        http.post(URL, content=pieces())
    assert [call.flag for call in mesh.calls] == ["DC"]
    mesh.assert_at_rest()

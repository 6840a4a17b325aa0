"""A transport of httpx or httpx2 carries the calls and the mesh decides: HTTP/2, proxies, and how both fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import pytest

from meshsdk import Mesh as RealMesh
from meshsdk.client import library
from meshsdk.client.transport_engine import AsyncTransportEngine, TransportEngine
from meshsdk.core.model import Endpoint, Phase, Snapshot, TransportFailure
from meshsdk.errors import BadReply, ConfigError, ConnectFailed, ConnectionLost, DeadlineExceeded
from meshsdk.identity.securing import TLS_META, Securing
from meshsdk.policy.effective import DEFAULTS
from meshsdk.wire.engine import Bounds, Request
from meshsdk.wire.security import PeerRejected, Security
from tests.client.colours import ONCE, Awaiting, Blocking, Colour, Mesh
from tests.client.http2 import Http2, Http2Stream, proxying
from tests.wire.scripted import Peer, Server, after_request, answering, deaf_port, eventually, refusing_port, reply

Serve = Callable[..., Server]

URL = "http://payments/charge?id=1"
COLOURS: list[Colour] = [Blocking(httpx), Awaiting(httpx), Blocking(httpx2), Awaiting(httpx2)]


@pytest.fixture(params=COLOURS, ids=lambda colour: f"{type(colour).__name__}-{colour.httpx.__name__}")
def colour(request: pytest.FixtureRequest) -> Colour:
    return request.param


def made(colour: Colour, **options: Any) -> Any:
    """A transport of the colour's library; what would take 20 ms, reading CAs, is left out."""
    kind = colour.httpx.HTTPTransport if isinstance(colour, Blocking) else colour.httpx.AsyncHTTPTransport
    return kind(verify=False, **options)


def over(colour: Colour, engine: Any) -> Colour:
    """The same colour, on that engine."""
    return type(colour)(colour.httpx, engine)


def plain(colour: Colour) -> Colour:
    return over(colour, made(colour))


def http2(colour: Colour) -> Colour:
    return over(colour, made(colour, http1=False, http2=True))


# --- HTTP/2 -------------------------------------------------------------------------------------------


async def test_http2(colour: Colour, serve: Serve) -> None:
    spoken = Http2(lambda stream: stream.reply(200, b"hello", ("x-a", "b")))
    server = serve(spoken)
    mesh = Mesh(server)
    async with http2(colour).client(mesh) as http:
        for _ in range(3):
            response = await http.request("POST", URL, content=b"body", headers={"X-Mine": "1"})
            assert (response.http_version, response.text, response.headers["x-a"]) == ("HTTP/2", "hello", "b")
    assert server.connections == 1
    asked = spoken.requests[0]
    assert asked.body == b"body"
    assert asked.headers[":authority"] == "payments"
    assert asked.headers[":path"] == "/charge?id=1"
    assert asked.headers["x-mine"] == "1"
    assert "x-envoy-expected-rq-timeout-ms" in asked.headers
    assert [call.attempts for call in mesh.calls] == [1, 1, 1]
    mesh.assert_at_rest()


async def test_many_calls_on_one_connection(colour: Colour, serve: Serve) -> None:
    """At once, where that can be: httpcore's blocking HTTP/2 sends the heads of two threads in any order, and a stream
    that comes after a later one is an error of the connection (RFC 9113, 5.1.1).
    """
    server = serve(Http2(lambda stream: stream.reply(200)))
    mesh = Mesh(server)
    at_once = 1 if isinstance(colour, Blocking) else 12
    async with http2(colour).client(mesh) as http:
        await http.get(URL)
        replies = [
            response
            for _ in range(12 // at_once)
            for response in await asyncio.gather(*(http.get(URL) for _ in range(at_once)))
        ]
    assert {response.status_code for response in replies} == {200}
    assert server.connections == 1
    mesh.assert_at_rest()


async def test_the_policy_retries_over_http2(colour: Colour, serve: Serve) -> None:
    statuses = [200, 503, 503]
    mesh = Mesh(serve(Http2(lambda stream: stream.reply(statuses.pop()))))
    async with http2(colour).client(mesh) as http:
        assert (await http.get(URL)).status_code == 200
    assert [call.attempts for call in mesh.calls] == [3]
    mesh.assert_at_rest()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_instance_that_hangs_up(colour: Colour, serve: Serve, method: str) -> None:
    bad = Http2(Http2Stream.hang_up)
    mesh = Mesh(serve(bad))
    async with http2(colour).client(mesh) as http:
        with pytest.raises(ConnectionLost):
            await http.request(method, URL, content=b"x")
    assert len(bad.requests) == (3 if method == "GET" else 1), "once written, only what is idempotent is repeated"
    mesh.assert_at_rest()


async def test_a_stream_that_is_reset_is_not_repeated_unless_idempotent(colour: Colour, serve: Serve) -> None:
    spoken = Http2(Http2Stream.reset)
    mesh = Mesh(serve(spoken))
    async with http2(colour).client(mesh) as http:
        with pytest.raises(BadReply):
            await http.request("POST", URL, content=b"x")
    assert len(spoken.requests) == 1
    assert mesh.attempts[0].outcome == "protocol"
    mesh.assert_at_rest()


async def test_a_body_that_stops(colour: Colour, serve: Serve) -> None:
    mesh = Mesh(serve(Http2(lambda stream: stream.begin(b"some"))), plan=ONCE)
    async with http2(colour).client(mesh) as http:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="went silent"):
            await http.get(URL)
        assert 0.2 < time.monotonic() - began < 1
    mesh.assert_at_rest()


async def test_an_instance_that_speaks_http1_only(colour: Colour, serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(65536)
        peer.send(reply(b"what?", 400))

    mesh = Mesh(serve(script), plan=ONCE)
    async with http2(colour).client(mesh) as http:
        with pytest.raises((BadReply, ConnectionLost)):
            await http.request("POST", URL, content=b"x")
    assert [call.attempts for call in mesh.calls] == [1]
    mesh.assert_at_rest()


@pytest.mark.parametrize("options", [{"http2": True}, {"http1": False, "http2": True, "proxy": "http://127.0.0.1:1"}])
def test_what_would_quietly_be_http1(colour: Colour, options: dict[str, Any]) -> None:
    name = type(made(colour)).__name__
    write = r"proxy=\.\.\." if "proxy" in options else "http1=False, http2=True"
    with pytest.raises(ConfigError, match=rf"HTTP/1\.1.*write {colour.httpx.__name__}\.{name}\({write}\)"):
        over(colour, made(colour, **options)).transport(Mesh())


# --- proxies ------------------------------------------------------------------------------------------


async def test_a_proxy(colour: Colour, serve: Serve) -> None:
    seen: list[bytes] = []
    server, proxy = serve(answering(reply(b"through"))), serve(proxying(seen))
    mesh = Mesh(server)
    async with over(colour, made(colour, proxy=f"http://{proxy.address}")).client(mesh) as http:
        assert (await http.get(URL)).text == "through"
        assert (await http.request("POST", URL, content=b"body")).text == "through"
    assert seen == [b"%s http://%s/charge?id=1 HTTP/1.1" % (m, server.address.encode()) for m in (b"GET", b"POST")]
    assert server.bodies == [b"", b"body"]
    assert all(b"via: 1.1 small" in head and b"payments" in head for head in server.heads)
    mesh.assert_at_rest()


async def test_the_policy_retries_through_a_proxy(colour: Colour, serve: Serve) -> None:
    seen: list[bytes] = []
    bad, good, proxy = serve(answering(reply(b"", 503))), serve(answering()), serve(proxying(seen))
    mesh = Mesh(bad, good)
    async with over(colour, made(colour, proxy=f"http://{proxy.address}")).client(mesh) as http:
        for _ in range(4):
            assert (await http.get(URL)).status_code == 200
    assert len(seen) == len(bad.heads) + len(good.heads) > 4
    mesh.assert_at_rest()


async def test_a_proxy_that_is_not_there(colour: Colour, serve: Serve) -> None:
    server = serve(answering())
    mesh = Mesh(server)
    with refusing_port() as port:
        async with over(colour, made(colour, proxy=f"http://127.0.0.1:{port}")).client(mesh) as http:
            with pytest.raises(ConnectFailed) as caught:
                await http.request("POST", URL, content=b"x")
    assert caught.value.attempts == 3
    assert "Connection refused" in str(caught.value)
    assert server.connections == 0
    mesh.assert_at_rest()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_proxy_variables_are_not_used(
    colour: Colour, serve: Serve, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with refusing_port() as port:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
        async with plain(colour).client(Mesh(serve(answering()))) as http:
            assert (await http.get(URL)).status_code == 200


# --- deadlines ----------------------------------------------------------------------------------------

BRIEF = replace(ONCE, timeouts=replace(ONCE.timeouts, attempt=0.2, request=0.4))


def drips_its_body(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    peer.drip(b"y" * 1000, 0.03)


@pytest.mark.parametrize("then", [Peer.stall, drips_its_body])
async def test_deadlines(colour: Colour, serve: Serve, then: Callable[[Peer], None]) -> None:
    mesh = Mesh(serve(after_request(then)), plan=BRIEF)
    async with plain(colour).client(mesh) as http:
        await _late(http, 0.8)
    mesh.assert_at_rest()


async def test_a_head_that_drips_is_bounded_by_awaiting(serve: Serve) -> None:
    mesh = Mesh(serve(after_request(lambda peer: peer.drip(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 99, 0.03))), plan=BRIEF)
    async with plain(Awaiting(httpx)).client(mesh) as http:
        await _late(http, 0.5)
    mesh.assert_at_rest()


async def _late(http: Any, most: float) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await http.get(URL)
    assert 0.15 < time.monotonic() - began < most


async def test_connecting_takes_too_long(colour: Colour) -> None:
    with deaf_port() as port:
        mesh = Mesh(f"127.0.0.1:{port}", plan=replace(ONCE, timeouts=replace(ONCE.timeouts, connect=0.1)))
        async with plain(colour).client(mesh) as http:
            with pytest.raises(colour.httpx.ConnectTimeout, match=r"no connection within 0\.1 s"):
                await http.get(URL)
    mesh.assert_at_rest()


async def test_the_transports_own_limits(colour: Colour, serve: Serve) -> None:
    one = made(colour, limits=colour.httpx.Limits(max_connections=1))
    mesh = Mesh(serve(after_request(Peer.stall)), plan=ONCE)
    async with over(colour, one).client(mesh) as http:
        results = await asyncio.gather(http.get(URL), http.get(URL, timeout=colour.httpx.Timeout(None, pool=0.1)),
                                       return_exceptions=True)  # fmt: skip
    assert sorted(type(error).__name__ for error in results) == ["DeadlineExceeded", "PoolTimedOut"]
    mesh.assert_at_rest()


# --- bodies -------------------------------------------------------------------------------------------


async def test_a_streamed_body(colour: Colour, serve: Serve) -> None:
    server = serve(answering(reply(b"ok")))
    mesh = Mesh(server)
    async with plain(colour).client(mesh) as http:
        assert (await http.request("POST", URL, content=colour.Pieces(b"one", b"two"))).text == "ok"
    assert server.bodies == [b"onetwo"]
    mesh.assert_at_rest()


async def test_a_body_that_breaks_is_the_callers_own_error(colour: Colour, serve: Serve) -> None:
    broken = colour.httpx.ReadError("of another reply")

    class Breaking(colour.Pieces):  # type: ignore[name-defined, misc]
        if isinstance(colour, Blocking):

            def __iter__(self) -> Iterator[bytes]:
                yield b"one"
                raise broken

        else:

            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield b"one"
                raise broken

    mesh = Mesh(serve(answering()))
    async with plain(colour).client(mesh) as http:
        with pytest.raises(colour.httpx.ReadError) as caught:
            await http.request("PUT", URL, content=Breaking())
    assert caught.value is broken
    assert [(call.flag, call.attempts) for call in mesh.calls] == [("DC", 1)]
    mesh.assert_at_rest()


async def test_a_reply_that_ends_early(colour: Colour, serve: Serve) -> None:
    mesh = Mesh(serve(after_request(lambda peer: peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"))))
    async with plain(colour).client(mesh) as http:
        with pytest.raises(ConnectionLost):
            await http.get(URL)
    assert [(call.reason, call.attempts) for call in mesh.calls] == [("body-reset", 1)]
    mesh.assert_at_rest()


async def test_streaming_and_closing_early(colour: Colour, serve: Serve) -> None:
    server = serve(after_request(drips_its_body))
    mesh = Mesh(server)
    async with plain(colour).client(mesh) as http:
        response = await http.begin("GET", URL)
        assert mesh.cluster.in_flight == 1
        await colour.close(response)
        mesh.assert_at_rest()
        await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    assert [call.flag for call in mesh.calls] == [""]


# --- how far a try got --------------------------------------------------------------------------------

SAFE = ["ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"]
UNSAFE = ["ReadError", "WriteError", "CloseError", "ReadTimeout", "WriteTimeout", "RemoteProtocolError"]


@pytest.mark.parametrize("name", SAFE + UNSAFE)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_only_what_provably_wrote_nothing_is_repeated(colour: Colour, name: str, method: str) -> None:
    asked: list[Any] = []

    def answer(request: Any) -> Any:
        asked.append(request)
        raise getattr(colour.httpx, name)("at this point")

    mesh = Mesh("127.0.0.1:1")
    async with over(colour, colour.httpx.MockTransport(answer)).client(mesh) as http:
        with pytest.raises(colour.httpx.TransportError):
            await http.request(method, URL, content=b"x")
    if name in SAFE:
        assert len(asked) == 3
    elif method == "POST":
        assert len(asked) == 1
    mesh.assert_at_rest()


async def test_a_streamed_body_that_was_begun_is_not_sent_again(colour: Colour) -> None:
    """Whatever the transport says afterwards: half of it is gone."""
    asked: list[Any] = []

    class Late(colour.httpx.BaseTransport, colour.httpx.AsyncBaseTransport):  # type: ignore[name-defined, misc]
        def handle_request(self, request: Any) -> Any:
            asked.append(next(iter(request.stream)))
            raise colour.httpx.ConnectError("late")

        async def handle_async_request(self, request: Any) -> Any:
            asked.append(await anext(aiter(request.stream)))
            raise colour.httpx.ConnectError("late")

    mesh = Mesh("127.0.0.1:1")
    async with over(colour, Late()).client(mesh) as http:
        with pytest.raises(colour.httpx.TransportError):
            await http.request("PUT", URL, content=colour.Pieces(b"one", b"two"))
    assert asked == [b"one"]
    mesh.assert_at_rest()


async def test_other_errors_pass_and_blame_nobody(colour: Colour) -> None:
    def answer(request: Any) -> Any:
        raise ZeroDivisionError("a mistake in the transport")

    mesh = Mesh("127.0.0.1:1")
    async with over(colour, colour.httpx.MockTransport(answer)).client(mesh) as http:
        with pytest.raises(ZeroDivisionError):
            await http.get(URL)
    assert [call.flag for call in mesh.calls] == ["DC"]
    mesh.assert_at_rest()


async def test_what_the_transport_will_not_send(colour: Colour) -> None:
    def answer(request: Any) -> Any:
        raise colour.httpx.LocalProtocolError("no such header")

    mesh = Mesh("127.0.0.1:1")
    async with over(colour, colour.httpx.MockTransport(answer)).client(mesh) as http:
        with pytest.raises(colour.errors.InvalidRequest, match="no such header"):
            await http.get(URL)
    mesh.assert_at_rest()


async def test_a_body_that_is_shorter_than_it_says(colour: Colour, serve: Serve) -> None:
    mesh = Mesh(serve(answering()))
    async with plain(colour).client(mesh) as http:
        with pytest.raises(colour.errors.InvalidRequest, match="Too little data"):
            await http.request("POST", URL, content=b"one", headers={"content-length": "4"})
    mesh.assert_at_rest()


async def test_what_the_transport_is_given(colour: Colour) -> None:
    seen: list[Any] = []

    def answer(request: Any) -> Any:
        seen.append(request)
        return colour.httpx.Response(200, text="ok")

    mesh = Mesh("[::1]:8002", plan=replace(DEFAULTS, timeouts=replace(DEFAULTS.timeouts, connect=0.5, attempt=2.0)))
    async with over(colour, colour.httpx.MockTransport(answer)).client(mesh) as http:
        await http.get(URL, timeout=colour.httpx.Timeout(None, read=1.5), extensions={"mine": 1})
        await http.request("OPTIONS", "http://payments/", extensions={"target": b"*"})
    first, second = seen
    assert str(first.url) == "http://[::1]:8002/charge?id=1"
    assert first.headers["host"] == "payments"
    assert "target" not in first.extensions, "httpcore would send it to a proxy in place of the whole URL"
    assert (first.extensions["mine"], second.extensions["target"]) == (1, b"*")
    waits = first.extensions["timeout"]
    assert waits["connect"] == 0.5
    assert 1.9 < waits["write"] <= 2.0


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.0.0.1:70000", "fe80 ::1:80"])
async def test_what_is_no_address(colour: Colour, address: str) -> None:
    mesh = Mesh(address, plan=ONCE)
    async with plain(colour).client(mesh) as http:
        with pytest.raises(ConnectFailed, match="is no address"):
            await http.get(URL)
    mesh.assert_at_rest()


# --- security -----------------------------------------------------------------------------------------

OURS = Security(SimpleNamespace(), "payments")  # type: ignore[arg-type]
SECURE = Endpoint("k", "127.0.0.1", 1, meta={TLS_META: "strict"})


async def _refusal(colour: Colour, secure: Any) -> TransportFailure:
    transport = colour.httpx.MockTransport(lambda request: colour.httpx.Response(200))
    request, bounds = Request("GET", b"/", [], b"", {}, "payments"), Bounds()
    if isinstance(colour, Blocking):
        engine = TransportEngine(transport, colour.httpx, time.monotonic, secure)
        with pytest.raises(TransportFailure) as caught:
            engine.send(SECURE, request, bounds)
    else:
        awaiting = AsyncTransportEngine(transport, colour.httpx, time.monotonic, secure)
        with pytest.raises(TransportFailure) as caught:
            await awaiting.send(SECURE, request, bounds)
    assert caught.value.failure.phase == Phase.NOT_CONNECTED
    return caught.value


async def test_what_is_to_be_mutual_tls_is_refused(colour: Colour) -> None:
    refused = await _refusal(colour, lambda endpoint, service: OURS)
    assert "clear text only" in refused.failure.detail
    assert 'write engine="meshsdk" or engine="httpcore"' in refused.failure.detail
    assert "set tls.mode of payments to off" in refused.failure.detail


async def test_what_must_not_be_called_at_all_is_refused_in_the_same_words(colour: Colour) -> None:
    def secure(endpoint: Endpoint, service: str) -> Security | None:
        raise PeerRejected("tls.mode of payments is strict")

    assert (await _refusal(colour, secure)).failure.detail == "tls.mode of payments is strict"


@pytest.mark.parametrize("offers", ["", "strict"])
async def test_a_strict_service(colour: Colour, serve: Serve, offers: str) -> None:
    """Through all layers: not a byte goes out, and the error says why."""
    server = serve(answering())
    mesh = Mesh(server, plan=replace(ONCE, tls="strict"))
    meta = {TLS_META: offers} if offers else {}
    mesh.cluster.update(Snapshot("payments", (Endpoint("k", server.host, server.port, meta=meta),)))
    identity: Any = SimpleNamespace(
        generation=1,
        state=SimpleNamespace(name="valid"),
        client_security=lambda service: OURS,
        wait_answer=lambda seconds: None,
    )
    security = Securing(identity, mesh.directory.peek)
    says = "clear text only; write engine=" if offers else "registered as taking clear text only"
    face = plain(colour)
    face.transport = partial(face.transport, security=security)  # type: ignore[method-assign]
    async with face.client(mesh) as http:
        with pytest.raises(ConnectFailed, match=says):
            await http.get(URL)
    assert server.connections == 0
    mesh.assert_at_rest()


# --- how it is written --------------------------------------------------------------------------------


def test_through_the_mesh() -> None:
    with RealMesh("caller", identity="off") as mesh:
        transport = httpx.HTTPTransport(verify=False, http1=False, http2=True)
        assert mesh.client(engine=transport)._transport._engine._transport is transport
        awaiting = httpx2.AsyncHTTPTransport(verify=False)
        assert mesh.async_client(library=httpx2, engine=awaiting)._transport._engine._transport is awaiting
        assert mesh.async_transport(engine=httpx.MockTransport(lambda _: None))._engine is not None


@pytest.mark.parametrize(
    ("kind", "engine", "wanted"),
    [
        ("MeshTransport", httpx2.HTTPTransport(verify=False), r"httpx\.BaseTransport"),
        ("MeshTransport", httpx.AsyncHTTPTransport(verify=False), r"httpx\.BaseTransport"),
        ("AsyncMeshTransport", httpx.HTTPTransport(verify=False), r"httpx\.AsyncBaseTransport"),
        ("AsyncMeshTransport", 42, r"httpx\.AsyncBaseTransport"),
        ("MeshTransport", httpx.HTTPTransport, r"httpx\.BaseTransport"),
    ],
)
def test_another_kind_of_transport(kind: str, engine: Any, wanted: str) -> None:
    with pytest.raises(ConfigError, match=rf"engine=.*write 'meshsdk', 'httpcore', or a transport that is an {wanted}"):
        getattr(library(), kind)(Mesh().directory, engine=engine)


@pytest.mark.parametrize("option", [{"http2": True}, {"proxy": "http://127.0.0.1:1"}, {"mounts": {"all://": None}}])
def test_a_client_option_says_what_to_write(option: dict[str, Any]) -> None:
    inside = r"http1=False, http2=True" if "http2" in option else r"proxy=\.\.\."
    with RealMesh("caller", identity="off") as mesh:
        with pytest.raises(ConfigError, match=rf"mesh\.client\(engine=httpx\.HTTPTransport\({inside}\)\)"):
            mesh.client(**option)
        with pytest.raises(
            ConfigError,
            match=rf"mesh\.async_client\(library=httpx2, engine=httpx2\.AsyncHTTPTransport\({inside}\)\)",
        ):
            mesh.async_client(library=httpx2, **option)


async def test_closing_the_client_closes_the_transport(colour: Colour, serve: Serve) -> None:
    server = serve(answering())
    async with plain(colour).client(Mesh(server)) as http:
        await http.get(URL)
        assert server.open_connections == 1
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)

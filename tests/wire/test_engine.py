"""How far a send gets and how it fails, at every point where a server can let go; both colours, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from meshsdk.core.model import Endpoint, Failure, Phase, TransportFailure
from meshsdk.wire.engine import Bounds, InvalidRequest, Request
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.blocking import BlockingEngine
from meshsdk.wire.httpcore_engine import AsyncHttpcoreEngine, HttpcoreEngine
from tests.wire.scripted import (
    Peer,
    Script,
    Server,
    after_request,
    answering,
    deaf_port,
    eventually,
    refusing_port,
    reply,
)

GOOD = reply(b"hello")


class Pieces:
    """A request body for both colours."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


class Blocking:
    """The blocking engine, called as the tests call both."""

    def __init__(self, engine: Any = BlockingEngine) -> None:
        self.engine = engine()

    async def send(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> Any:
        return await asyncio.to_thread(self.engine.send, endpoint, request, bounds)

    async def read(self, answer: Any) -> bytes:
        return await asyncio.to_thread(b"".join, answer)

    async def let_go(self, answer: Any) -> None:
        answer.close()

    async def retire(self, *gone: Endpoint) -> None:
        self.engine.retire(gone)

    async def close(self) -> None:
        self.engine.close()


class Awaiting:
    """The asyncio engine."""

    def __init__(self, engine: Any = AsyncioEngine) -> None:
        self.engine = engine()

    async def send(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> Any:
        return await self.engine.send(endpoint, request, bounds)

    async def read(self, answer: Any) -> bytes:
        return b"".join([piece async for piece in answer])

    async def let_go(self, answer: Any) -> None:
        await answer.aclose()

    async def retire(self, *gone: Endpoint) -> None:
        await self.engine.retire(gone)

    async def close(self) -> None:
        await self.engine.aclose()


ENGINES = {
    "blocking": (Blocking, BlockingEngine),
    "asyncio": (Awaiting, AsyncioEngine),
    "httpcore": (Blocking, HttpcoreEngine),
    "async httpcore": (Awaiting, AsyncHttpcoreEngine),
}


@pytest.fixture(params=ENGINES)
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    caller, engine = ENGINES[request.param]
    wire = caller(engine)
    yield wire
    await wire.close()


def at(server: Server | int) -> Endpoint:
    if isinstance(server, int):
        return Endpoint("x", "127.0.0.1", server)
    return Endpoint("x", server.host, server.port)


def get(body: Any = None, method: str = "GET", *fields: tuple[bytes, bytes]) -> Request:
    return Request(method, b"/path?q=1", [(b"Host", b"payments"), *fields], body or b"", {})


def within(seconds: float, **bounds: float) -> Bounds:
    until = time.monotonic() + seconds
    return Bounds(**{"deadline": until, "body_deadline": until, **bounds})


async def failing(wire: Any, endpoint: Endpoint, bounds: Bounds, request: Request | None = None) -> Failure:
    with pytest.raises(TransportFailure) as caught:
        await wire.send(endpoint, request or get(), bounds)
    return caught.value.failure


async def test_a_reply(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering(reply(b"hello", 201, b"X-One: 1\r\nretry-after: 3\r\n")))
    answer = await wire.send(at(server), get(), within(5))
    assert answer.status == 201
    assert (b"X-One", b"1") in answer.headers
    assert answer.extensions["http_version"] == b"HTTP/1.1"
    assert answer.extensions["reason_phrase"] == b"Whatever"
    assert answer.retry_after is None, "only errors ask to wait"
    assert await wire.read(answer) == b"hello"
    await wire.let_go(answer)
    assert server.heads[0].split(b"\r\n") == [b"GET /path?q=1 HTTP/1.1", b"Host: payments"]


async def test_a_connection_is_used_again(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering())
    for _ in range(5):
        answer = await wire.send(at(server), get(), within(5))
        await wire.read(answer)
        await wire.let_go(answer)
    assert server.connections == 1


async def test_a_half_read_body_closes_its_connection(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(after_request(lambda peer: (peer.send(GOOD[:-2]), peer.stall())))
    answer = await wire.send(at(server), get(), within(5))
    await wire.let_go(answer)
    await wire.let_go(answer)
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)


async def test_ipv6(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering(), family=socket.AF_INET6)
    answer = await wire.send(at(server), get(), within(5))
    assert answer.status == 200
    await wire.let_go(answer)


async def test_a_host_name_is_tried_at_each_address(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering())  # `localhost` is ::1 too, where nobody listens
    answer = await wire.send(Endpoint("x", "localhost", server.port), get(), within(5))
    assert answer.status == 200
    await wire.let_go(answer)


# --- where a server can let go ------------------------------------------------------------------------

HEAD_HALF = b"HTTP/1.1 200 OK\r\ncontent-le"
BODY_HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"

BREAKS: dict[str, tuple[Script, Phase, str, str]] = {
    "closes at accept": (lambda peer: None, Phase.WRITTEN, "reset", "before any reply"),
    "closes after request": (after_request(lambda peer: None), Phase.WRITTEN, "reset", "closed the connection before"),
    "resets after request": (after_request(Peer.reset), Phase.WRITTEN, "reset", "connection broken"),
    "closes mid head": (
        after_request(lambda peer: peer.send(HEAD_HALF)),
        Phase.REPLY_STARTED,
        "reset",
        "in the middle of the head",
    ),
    "sends garbage": (
        after_request(lambda peer: peer.send(b"\x16\x03\x01nonsense\r\n\r\n")),
        Phase.REPLY_STARTED,
        "protocol",
        "",
    ),
    "stalls after request": (after_request(Peer.stall), Phase.WRITTEN, "timeout", "no reply in time"),
    "stalls mid head": (
        after_request(lambda peer: (peer.send(HEAD_HALF), peer.stall())),
        Phase.REPLY_STARTED,
        "timeout",
        "head was not complete",
    ),
    "drips the head": (
        after_request(lambda peer: peer.drip(GOOD, 0.03)),
        Phase.REPLY_STARTED,
        "timeout",
        "head was not complete",
    ),
}


@pytest.mark.parametrize("how", BREAKS)
async def test_before_the_head(wire: Any, serve: Callable[..., Server], how: str) -> None:
    script, phase, kind, detail = BREAKS[how]
    began = time.monotonic()
    failure = await failing(wire, at(serve(script)), within(0.25))
    assert (failure.phase, failure.kind) == (phase, kind), failure
    assert detail in failure.detail
    assert time.monotonic() - began < 0.6, "a deadline is absolute"


async def test_a_reset_at_accept_is_seen_when_it_arrives(wire: Any, serve: Callable[..., Server]) -> None:
    failure = await failing(wire, at(serve(Peer.reset)), within(5))
    assert (failure.phase, failure.kind) in {(Phase.NOT_CONNECTED, "connect-failure"), (Phase.WRITTEN, "reset")}


async def test_nobody_listens(wire: Any) -> None:
    with refusing_port() as port:
        failure = await failing(wire, at(port), within(5))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "connect-failure")
    assert isinstance(failure.cause, OSError)
    assert "refused" in failure.detail.lower()


async def test_connecting_has_a_bound_of_its_own(wire: Any) -> None:
    with deaf_port() as port:
        failure = await failing(wire, at(port), within(5, connect=0.1))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "connect-failure")
    assert "within 0.1 s" in failure.detail
    assert isinstance(failure.cause, TimeoutError)


async def test_connecting_until_the_deadline_is_a_timeout(wire: Any) -> None:
    with deaf_port() as port:
        failure = await failing(wire, at(port), within(0.1, connect=5))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "timeout")


async def test_a_deadline_in_the_past_sends_nothing(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering())
    failure = await failing(wire, at(server), within(-1))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "timeout")
    assert server.connections == 0


@pytest.mark.parametrize(("address", "port"), [("no such host", 1), ("a" * 64, 1), ("127.0.0.1", 70000), ("é" * 70, 1)])
async def test_an_address_that_is_none(wire: Any, address: str, port: int) -> None:
    failure = await failing(wire, Endpoint("x", address, port), within(5))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "connect-failure")


BODY_BREAKS: dict[str, tuple[Script, str, str]] = {
    "closes": (after_request(lambda peer: peer.send(BODY_HALF)), "reset", "closed the connection in the middle"),
    "resets": (
        after_request(lambda peer: (peer.send(BODY_HALF), peer.stopped.wait(0.1), peer.reset())),
        "reset",
        "in the middle of the body",
    ),
    "stalls": (after_request(lambda peer: (peer.send(BODY_HALF), peer.stall())), "timeout", "went silent"),
    "drips": (after_request(lambda peer: peer.drip(b"", 0) or _drip_body(peer)), "timeout", "not complete in time"),
    "breaks a chunk": (
        after_request(lambda peer: peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")),
        "protocol",
        "",
    ),
}


def _drip_body(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    peer.drip(b"x" * 1000, 0.02)


@pytest.mark.parametrize("how", BODY_BREAKS)
async def test_inside_the_body(wire: Any, serve: Callable[..., Server], how: str) -> None:
    script, kind, detail = BODY_BREAKS[how]
    answer = await wire.send(at(serve(script)), get(), within(0.5, idle=0.2))
    began = time.monotonic()
    with pytest.raises(TransportFailure) as caught:
        await wire.read(answer)
    assert time.monotonic() - began < 0.9
    assert (caught.value.failure.phase, caught.value.failure.kind) == (Phase.REPLY_STARTED, kind)
    assert detail in caught.value.failure.detail
    await wire.let_go(answer)


async def test_the_users_own_read_timeout_is_kept(wire: Any, serve: Callable[..., Server]) -> None:
    failure = await failing(wire, at(serve(after_request(Peer.stall))), within(5, read=0.1))
    assert failure.kind == "timeout"


async def test_a_body_may_take_longer_than_the_head(wire: Any, serve: Callable[..., Server]) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(GOOD[:-3])
        peer.stopped.wait(0.3)
        peer.send(GOOD[-3:])

    answer = await wire.send(at(serve(script)), get(), within(0.1, body_deadline=math.inf))
    assert await wire.read(answer) == b"hello"
    await wire.let_go(answer)


# --- bodies that go out -------------------------------------------------------------------------------


async def test_a_streamed_request(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering())
    request = get(Pieces(b"one", b"two"), "POST", (b"transfer-encoding", b"chunked"))
    answer = await wire.send(at(server), request, within(5))
    await wire.let_go(answer)
    assert server.bodies == [b"onetwo"]


async def test_an_early_answer_to_an_upload_is_heard(wire: Any, serve: Callable[..., Server]) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1024)
        peer.send(reply(b"too large", 413, b"connection: close\r\n"))
        peer.stall()

    request = get(Pieces(*[b"x" * 1000] * 20), "POST", (b"content-length", b"20000"))
    answer = await wire.send(at(serve(script)), request, within(5))
    assert answer.status == 413
    await wire.let_go(answer)


async def test_an_error_of_the_bodys_own_is_not_the_endpoints(wire: Any, serve: Callable[..., Server]) -> None:
    class Broken(Pieces):
        def __iter__(self) -> Iterator[bytes]:
            yield b"one"
            raise OSError("the file is gone")

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"one"
            raise OSError("the file is gone")

    request = get(Broken(), "POST", (b"transfer-encoding", b"chunked"))
    with pytest.raises(OSError, match="the file is gone"):
        await wire.send(at(serve(answering())), request, within(5))


async def test_a_request_that_is_not_http(wire: Any, serve: Callable[..., Server]) -> None:
    with pytest.raises(InvalidRequest, match="header"):
        await wire.send(at(serve(answering())), get(None, "GET", (b"x", b"a\r\nb: c")), within(5))
    with pytest.raises(InvalidRequest, match="Content-Length"):
        await wire.send(at(serve(answering())), get(Pieces(b"a"), "POST", (b"content-length", b"9")), within(5))


# --- pools --------------------------------------------------------------------------------------------


async def test_a_stale_connection_is_seen_before_it_is_used(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering())
    for _ in range(2):
        answer = await wire.send(at(server), get(None, "POST"), within(5))
        await wire.read(answer)
        await wire.let_go(answer)
        server.drop_connections()
        await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    assert server.connections == 2


async def test_the_limit_of_connections(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering())
    first = await wire.send(at(server), get(), within(5, max_connections=1))
    failure = await failing(wire, at(server), within(0.1, max_connections=1))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "timeout")
    assert "all 1 allowed" in failure.detail
    await wire.read(first)
    await wire.let_go(first)
    second = await wire.send(at(server), get(), within(5, max_connections=1))
    await wire.let_go(second)
    assert server.connections == 1


async def test_an_endpoint_that_is_gone(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering())
    idle = await wire.send(at(server), get(), within(5))
    await wire.read(idle)
    await wire.let_go(idle)
    busy = await wire.send(at(server), get(), within(5))
    await wire.retire(at(server))
    assert await wire.read(busy) == b"ok", "what is in flight finishes"
    assert server.open_connections == 1
    await wire.let_go(busy)
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)


async def test_a_new_limit_takes_a_new_pool(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering())
    for limit in (1, 2, 2):
        answer = await wire.send(at(server), get(), within(5, max_connections=limit))
        await wire.read(answer)
        await wire.let_go(answer)
    assert server.connections == 2
    await asyncio.to_thread(eventually, lambda: server.open_connections == 1)


async def test_closing_and_going_on(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering())
    for _ in range(2):
        answer = await wire.send(at(server), get(), within(5))
        await wire.read(answer)
        await wire.let_go(answer)
        await wire.close()
        await asyncio.to_thread(eventually, lambda: server.open_connections == 0)


def test_both_colours_have_the_same_face() -> None:
    blocking, awaiting = (
        {name.removeprefix("a") for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}
        for kind in (HttpcoreEngine, AsyncHttpcoreEngine)
    )
    assert blocking == awaiting


def test_each_loop_has_connections_of_its_own(serve: Callable[..., Server]) -> None:
    server = serve(answering())
    engine = AsyncHttpcoreEngine()

    async def call() -> None:
        for _ in range(2):
            answer = await engine.send(at(server), get(), within(5))
            assert b"".join([piece async for piece in answer]) == b"ok"
            await answer.aclose()

    for _ in range(3):
        asyncio.run(call())
        eventually(lambda: server.open_connections == 0)  # closed as the loop shut down
    assert server.connections == 3


def test_a_loop_that_was_just_closed_is_forgotten(serve: Callable[..., Server]) -> None:
    server = serve(answering())
    engine = AsyncHttpcoreEngine()

    async def call() -> None:
        answer = await engine.send(at(server), get(), within(5))
        await answer.aclose()

    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(call())
        with contextlib.suppress(RuntimeError):
            loop.close()
    assert len(engine._loops._loops) == 1

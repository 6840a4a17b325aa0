"""What every engine does for its callers: calls, bodies that go out, pools, loops; all colours, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import socket
from collections.abc import Callable
from typing import Any

import pytest

from meshsdk.core.model import Endpoint, Phase
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.blocking import BlockingEngine
from meshsdk.wire.engine import InvalidRequest
from meshsdk.wire.httpcore_engine import AsyncHttpcoreEngine, HttpcoreEngine
from tests.wire.callers import Pieces, at, called, failing, get, within
from tests.wire.scripted import LONG, Peer, Script, Server, after_request, answering, eventually, reply

WORDS = b"hello" * (LONG // 5 + 1)
GOOD = reply(WORDS)
ASYNC_ENGINES = pytest.mark.parametrize("kind", [AsyncioEngine, AsyncHttpcoreEngine])


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
    request = get(Pieces(b"one", then=OSError("the file is gone")), "POST", (b"transfer-encoding", b"chunked"))
    with pytest.raises(OSError, match="the file is gone"):
        await wire.send(at(serve(answering())), request, within(5))


async def test_a_request_that_is_not_http(wire: Any, serve: Callable[..., Server]) -> None:
    with pytest.raises(InvalidRequest, match="header"):
        await wire.send(at(serve(answering())), get(None, "GET", (b"x", b"a\r\nb: c")), within(5))
    with pytest.raises(InvalidRequest, match="Content-Length"):
        await wire.send(at(serve(answering())), get(Pieces(b"a"), "POST", (b"content-length", b"9")), within(5))


def holding_back() -> Script:
    """Answer each request, but for the last byte, which comes once `server.go_on` is set."""

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(GOOD[:-1])
            peer.server.go_on.wait(5)
            peer.send(GOOD[-1:])

    return script


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
    server = serve(holding_back())
    first = await wire.send(at(server), get(), within(5, max_connections=1))
    failure = await failing(wire, at(server), within(0.1, max_connections=1))
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "timeout")
    assert "all 1 allowed" in failure.detail
    server.go_on.set()
    await wire.read(first)
    await wire.let_go(first)
    assert await called(wire, at(server), within(5, max_connections=1)) == WORDS
    assert server.connections == 1


async def test_an_endpoint_that_is_gone(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(holding_back())
    first, second = [await wire.send(at(server), get(), within(5)) for _ in range(2)]
    server.go_on.set()
    await wire.read(first)
    await wire.let_go(first)
    server.go_on.clear()
    third = await wire.send(at(server), get(), within(5))
    assert server.connections == 2
    await wire.retire(at(server))
    server.go_on.set()
    for busy in (second, third):
        assert await wire.read(busy) == WORDS, "what is in flight finishes"
        await wire.let_go(busy)
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)


async def test_another_limit_keeps_the_connection(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering())
    for limit in (1, 2, 2, 0, 1):
        answer = await wire.send(at(server), get(), within(5, max_connections=limit))
        await wire.read(answer)
        await wire.let_go(answer)
    assert server.connections == 1


async def test_closing_and_going_on(wire: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering())
    for _ in range(2):
        answer = await wire.send(at(server), get(), within(5))
        await wire.read(answer)
        await wire.let_go(answer)
        await wire.close()
        await asyncio.to_thread(eventually, lambda: server.open_connections == 0)


@pytest.mark.parametrize("kinds", [(BlockingEngine, AsyncioEngine), (HttpcoreEngine, AsyncHttpcoreEngine)])
def test_both_colours_have_the_same_face(kinds: tuple[type, type]) -> None:
    blocking, awaiting = (
        {name.removeprefix("a") for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}
        for kind in kinds
    )
    assert blocking == awaiting


@ASYNC_ENGINES
def test_each_loop_has_connections_of_its_own(serve: Callable[..., Server], kind: Any) -> None:
    server = serve(answering())
    engine = kind()

    async def call() -> None:
        for _ in range(2):
            answer = await engine.send(at(server), get(), within(5))
            assert b"".join([piece async for piece in answer]) == b"ok"
            await answer.aclose()

    for _ in range(3):
        asyncio.run(call())
        eventually(lambda: server.open_connections == 0)  # closed as the loop shut down
    assert server.connections == 3


@ASYNC_ENGINES
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_loop_that_was_just_closed_is_forgotten(serve: Callable[..., Server], kind: Any) -> None:
    server = serve(answering())
    engine = kind()

    async def call() -> None:
        answer = await engine.send(at(server), get(), within(5))
        await answer.aclose()

    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(call())
        with contextlib.suppress(RuntimeError):
            loop.close()
    assert len(engine._loops._loops) == 1
    del loop
    gc.collect()  # a loop that was not shut down leaves its sockets to the collector, which complains of them


@pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, close"])
async def test_no_request_follows_one_that_said_close(wire: Any, serve: Callable[..., Server], value: bytes) -> None:
    server = serve(answering())
    for _ in range(2):
        answer = await wire.send(at(server), get(None, "GET", (b"Connection", value)), within(5))
        await wire.read(answer)
        await wire.let_go(answer)
    assert server.connections == 2

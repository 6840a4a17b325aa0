"""Calls through both transports, against servers that behave and servers that do not."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import meshsdk.errors as mesh_errors
from meshsdk.telemetry.context import Inbound, current
from meshsdk.telemetry.propagate import extract
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.blocking import BlockingEngine
from meshsdk.wire.engine import Bounds
from tests.client.colours import ONCE, QUICK, Awaiting, Blocking, Colour, Mesh
from tests.wire.scripted import (
    Peer,
    Script,
    Server,
    after_request,
    answering,
    deaf_port,
    refusing_port,
    reply,
)

Serve = Callable[..., Server]


async def test_an_ordinary_call(colour: Colour, serve: Serve) -> None:
    server = serve(answering(reply(b"hello", 201, b"x-one: 1\r\nx-one: 2\r\n")))
    mesh = Mesh(server)
    async with colour.client(mesh) as http:
        response = await http.request("POST", "http://payments/charge?id=1", content=b"body", headers={"X-A": "b"})
    assert (response.status_code, response.text) == (201, "hello")
    assert response.headers.get_list("x-one") == ["1", "2"]
    assert (response.http_version, response.reason_phrase) == ("HTTP/1.1", "Whatever")
    assert response.elapsed.total_seconds() < 3
    lines = server.heads[0].split(b"\r\n")
    assert lines[0] == b"POST /charge?id=1 HTTP/1.1"
    assert b"Host: payments" in lines
    assert b"X-A: b" in lines
    assert server.bodies == [b"body"]
    (call,) = mesh.calls
    assert (call.status, call.flag, call.attempts, call.call.path) == (201, "", 1, "/charge")
    mesh.assert_at_rest()


async def test_the_instance_learns_its_deadline(colour: Colour, serve: Serve) -> None:
    server = serve(answering())
    async with colour.client(Mesh(server)) as http:
        await http.get("http://payments/", headers={"X-Envoy-Expected-Rq-Timeout-Ms": "999999"})
    fields = [line for line in server.heads[0].lower().split(b"\r\n") if line.startswith(b"x-envoy")]
    assert len(fields) == 1, "the caller's own is replaced"
    assert 0 < int(fields[0].partition(b": ")[2]) <= 500


async def test_calls_go_to_every_instance(colour: Colour, serve: Serve) -> None:
    servers = [serve(answering()) for _ in range(3)]
    plan = replace(QUICK, balancing=replace(QUICK.balancing, algorithm="round-robin"))
    async with colour.client(Mesh(*servers, plan=plan)) as http:
        for _ in range(12):
            await http.get("http://payments/")
    assert [len(server.heads) for server in servers] == [4, 4, 4]


async def test_a_dead_instance_costs_nobody_a_call(colour: Colour, serve: Serve) -> None:
    with refusing_port() as port:
        mesh = Mesh(serve(answering()), f"127.0.0.1:{port}")
        async with colour.client(mesh) as http:
            for _ in range(20):
                response = await http.request("POST", "http://payments/", content=b"x")
                assert response.status_code == 200
    assert any(call.attempts == 2 for call in mesh.calls)
    mesh.assert_at_rest()


# --- what is tried again, and what the caller is told -------------------------------------------------


async def test_a_503_is_tried_again(colour: Colour, serve: Serve) -> None:
    server = serve(answering(reply(b"", 503)))
    mesh = Mesh(server)
    async with colour.client(mesh) as http:
        response = await http.get("http://payments/")
    assert response.status_code == 503
    assert len(server.heads) == 3
    assert [attempt.outcome for attempt in mesh.attempts] == ["5xx"] * 3
    assert b"x-envoy-attempt-count: 3" in server.heads[2].lower()
    mesh.assert_at_rest()


async def test_a_post_that_was_written_is_not_sent_twice(colour: Colour, serve: Serve) -> None:
    server = serve(after_request(lambda peer: None))
    mesh = Mesh(server)
    async with colour.client(mesh) as http:
        with pytest.raises(mesh_errors.ConnectionLost) as caught:
            await http.request("POST", "http://payments/", content=b"x")
        assert isinstance(caught.value, colour.httpx.ReadError)
        assert caught.value.request.url == "http://payments/"
        assert len(server.heads) == 1
        with pytest.raises(mesh_errors.ConnectionLost):
            await http.request("POST", "http://payments/", content=b"x", headers={"Idempotency-Key": "7"})
    assert len(server.heads) == 4
    mesh.assert_at_rest()


STREAM_END = reply(b"done")


async def test_a_stream_is_sent_again_only_if_nobody_touched_it(colour: Colour, serve: Serve) -> None:
    with refusing_port() as port:
        server = serve(answering(STREAM_END))
        mesh = Mesh(f"127.0.0.1:{port}", server)
        async with colour.client(mesh) as http:
            for _ in range(10):
                body = colour.Pieces(b"one", b"two")
                response = await http.request("PUT", "http://payments/", content=body)
                assert response.text == "done"
                assert body.begun == 1
    assert set(server.bodies) == {b"onetwo"}
    assert any(call.attempts == 2 for call in mesh.calls)


async def test_a_stream_that_was_touched_is_not(colour: Colour, serve: Serve) -> None:
    server = serve(after_request(lambda peer: None))
    mesh = Mesh(server)
    body = colour.Pieces(b"one", b"two")
    async with colour.client(mesh) as http:
        with pytest.raises(mesh_errors.ConnectionLost, match="body-not-replayable"):
            await http.request("PUT", "http://payments/", content=body)
    assert body.begun == 1
    mesh.assert_at_rest()


@pytest.mark.parametrize("headers", [{}, {"content-length": "8"}], ids=["chunked", "sized"])
async def test_a_stream_brings_whatever_has_bytes(colour: Colour, serve: Serve, headers: dict[str, str]) -> None:
    server = serve(answering())
    async with colour.client(Mesh(server)) as http:
        body = colour.Pieces(bytearray(b"one"), memoryview(b"two"), b"33")
        await http.request("PUT", "http://payments/", content=body, headers=headers)
    assert server.bodies == [b"onetwo33"]


async def test_a_file_is_streamed(colour: Colour, serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(b"x" * 200_000)
    server = serve(answering())
    async with colour.client(Mesh(server)) as http:
        if isinstance(colour, Blocking):
            with path.open("rb") as file:
                await http.request("PUT", "http://payments/", content=file)
        with path.open("rb") as file:
            await http.request("POST", "http://payments/", files={"file": ("name", file.read())})
    assert len(server.bodies[-1]) > 200_000


async def test_an_error_while_making_the_body_is_the_callers(colour: Colour, serve: Serve) -> None:
    class Broken(colour.Pieces):  # type: ignore[name-defined]
        def __iter__(self):
            yield b"one"
            raise OSError("the disk is gone")

        async def __aiter__(self):
            yield b"one"
            raise OSError("the disk is gone")

    class Blocked(Broken):
        __aiter__ = None

    class Awaited(Broken):
        __iter__ = None

    mesh = Mesh(serve(answering()))
    async with colour.client(mesh) as http:
        with pytest.raises(OSError, match="the disk is gone"):
            await http.request(
                "PUT", "http://payments/", content=(Blocked if isinstance(colour, Blocking) else Awaited)()
            )
    assert [call.flag for call in mesh.calls] == ["DC"]
    mesh.assert_at_rest()


@pytest.mark.parametrize(
    ("script", "ours", "theirs", "says"),
    [
        (after_request(Peer.stall), mesh_errors.DeadlineExceeded, "ReadTimeout", "no reply in time"),
        (after_request(lambda peer: peer.drip(reply(), 0.05)), mesh_errors.DeadlineExceeded, "ReadTimeout", "head"),
        (after_request(Peer.reset), mesh_errors.ConnectionLost, "ReadError", "connection broken"),
        (
            after_request(lambda peer: peer.send(b"nonsense\r\n\r\n")),
            mesh_errors.BadReply,
            "RemoteProtocolError",
            "protocol",
        ),
    ],
)
async def test_a_call_that_fails(  # noqa: PLR0917 - one column of the table each
    colour: Colour,
    serve: Serve,
    script: Script,
    ours: type[mesh_errors.CallError],
    theirs: str,
    says: str,
) -> None:
    server = serve(script)
    plan = replace(ONCE, timeouts=replace(ONCE.timeouts, attempt=0.15))
    mesh = Mesh(server, plan=plan)
    async with colour.client(mesh) as http:
        with pytest.raises(ours, match=says) as caught:
            await http.get("http://payments/")
    assert isinstance(caught.value, getattr(colour.httpx, theirs))
    assert caught.value.endpoint == server.address
    assert f"policy {plan.version}" in str(caught.value)
    mesh.assert_at_rest()


async def test_nobody_listens(colour: Colour) -> None:
    with refusing_port() as port:
        mesh = Mesh(f"127.0.0.1:{port}")
        async with colour.client(mesh) as http:
            with pytest.raises(mesh_errors.ConnectFailed, match="refused") as caught:
                await http.request("POST", "http://payments/", content=b"x")
    assert isinstance(caught.value, colour.httpx.ConnectError)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert caught.value.attempts == 3
    mesh.assert_at_rest()


async def test_connecting_takes_too_long(colour: Colour) -> None:
    with deaf_port() as port:
        mesh = Mesh(f"127.0.0.1:{port}", plan=replace(ONCE, timeouts=replace(ONCE.timeouts, connect=0.05)))
        async with colour.client(mesh) as http:
            with pytest.raises(mesh_errors.ConnectFailed, match=r"within 0\.05 s") as caught:
                await http.get("http://payments/")
    assert isinstance(caught.value, colour.httpx.ConnectTimeout)


async def test_a_service_nobody_knows(colour: Colour) -> None:
    async with colour.client(Mesh()) as http:
        with pytest.raises(mesh_errors.UnknownService, match="payments") as caught:
            await http.get("http://orders/")
        assert isinstance(caught.value, colour.httpx.ConnectError)
        assert caught.value.request.url.host == "orders"
        with pytest.raises(mesh_errors.NoEndpoint):
            await http.get("http://payments/")


async def test_a_request_that_is_not_http(colour: Colour, serve: Serve) -> None:
    mesh = Mesh(serve(answering()))
    async with colour.client(mesh) as http:
        with pytest.raises(colour.errors.InvalidRequest, match="Content-Length") as caught:
            await http.request("PUT", "http://payments/", content=b"a", headers={"content-length": "9"})
        assert caught.value.request.method == "PUT"
        with pytest.raises(colour.httpx.UnsupportedProtocol, match="write http://payments"):
            await http.get("https://payments/")
    mesh.assert_at_rest()


# --- time -----------------------------------------------------------------------------------------------


async def test_httpx_timeouts_count_on_top(colour: Colour, serve: Serve) -> None:
    mesh = Mesh(serve(after_request(Peer.stall)), plan=ONCE)
    async with colour.client(mesh) as http:
        began = time.monotonic()
        with pytest.raises(colour.httpx.ReadTimeout):
            await http.get("http://payments/", timeout=0.1)
    assert time.monotonic() - began < 0.4


async def test_the_deadline_of_the_request_being_served(colour: Colour, serve: Serve) -> None:
    server = serve(after_request(Peer.stall))
    mesh = Mesh(server)
    async with colour.client(mesh) as http:
        token = current.set(Inbound(deadline=time.monotonic() + 0.15))
        try:
            began = time.monotonic()
            with pytest.raises(mesh_errors.DeadlineExceeded):
                await http.get("http://payments/")
            assert 0.1 < time.monotonic() - began < 0.4
            with pytest.raises(mesh_errors.DeadlineExceeded, match="0 attempts") as caught:
                await http.get("http://payments/")
            assert isinstance(caught.value, colour.httpx.ConnectTimeout), "nothing was sent"
        finally:
            current.reset(token)
    assert len(server.heads) == 1
    mesh.assert_at_rest()


async def test_the_trace_goes_along(colour: Colour, serve: Serve) -> None:
    server = serve(answering())
    inbound = [(b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"), (b"tracestate", b"k=v")]
    async with colour.client(Mesh(server)) as http:
        token = current.set(Inbound(trace=extract(inbound)))
        try:
            await http.get("http://payments/")
            own = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
            await http.get("http://payments/", headers={"traceparent": own})
        finally:
            current.reset(token)
    assert b"a" * 32 in server.heads[0]
    assert b"tracestate: k=v" in server.heads[0]
    assert b"c" * 32 in server.heads[1], "what the caller wrote stands"
    assert b"a" * 32 not in server.heads[1]
    assert b"tracestate" not in server.heads[1]


# --- what lies above the transport is httpx's own -----------------------------------------------------


async def test_redirects_auth_cookies_and_hooks(colour: Colour, serve: Serve) -> None:
    server = serve(answering(reply(b"", 302, b"location: /there\r\nset-cookie: a=b\r\n"), reply(b"arrived")))
    seen: list[str] = []

    def hook(message: object) -> None:
        seen.append(next(name for name in ("Request", "Response") if isinstance(message, getattr(colour.httpx, name))))

    async def ahook(message: object) -> None:
        hook(message)

    chosen = hook if isinstance(colour, Blocking) else ahook
    mesh = Mesh(server)
    async with colour.client(
        mesh,
        follow_redirects=True,
        auth=("user", "secret"),
        event_hooks={"request": [chosen], "response": [chosen]},
        base_url="http://payments/",
    ) as http:
        response = await http.get("/here")
    assert response.text == "arrived"
    assert [before.status_code for before in response.history] == [302]
    assert b"Cookie: a=b" in server.heads[1]
    assert all(b"Authorization: Basic" in head for head in server.heads)
    assert seen == ["Request", "Response"] * 2
    assert len(mesh.calls) == 2
    mesh.assert_at_rest()


async def test_instances_that_are_gone_lose_their_connections(colour: Colour, serve: Serve) -> None:
    old, new = serve(answering()), serve(answering())
    mesh = Mesh(old)
    async with colour.client(mesh) as http:
        await http.get("http://payments/")
        assert old.open_connections == 1
        mesh.directory.place("payments", [new.address])
        await http.get("http://payments/")
        for _ in range(500):
            if not old.open_connections:
                break
            await asyncio.sleep(0.01)
        assert old.open_connections == 0
    assert len(new.heads) == 1


@pytest.mark.parametrize(("kind", "engine"), [(Blocking, BlockingEngine), (Awaiting, AsyncioEngine)])
async def test_each_try_keeps_to_the_limit_in_force(kind: Any, engine: Any, serve: Serve) -> None:
    """An older one, brought back, would close connections that are allowed by now, and open those that are not."""
    mesh = Mesh(serve(answering(reply(b"", 503), reply())))
    limits: list[int] = []

    class Noting(engine):  # type: ignore[misc]
        def send(self, endpoint: Any, request: Any, bounds: Bounds) -> Any:
            limits.append(bounds.max_connections)
            mesh.cluster.adopt(replace(QUICK, limits=replace(QUICK.limits, max_connections_per_endpoint=7)))
            return super().send(endpoint, request, bounds)

    async with kind(engine=Noting()).client(mesh) as http:
        assert (await http.get("http://payments/")).status_code == 200
    assert limits == [QUICK.limits.max_connections_per_endpoint, 7]


async def test_ten_mebibytes_down(colour: Colour, serve: Serve) -> None:
    size = 10 * 1024 * 1024
    server = serve(answering(reply(b"x" * size)))
    mesh = Mesh(server, plan=replace(QUICK, timeouts=replace(QUICK.timeouts, request=30, attempt=5, idle=math.inf)))
    async with colour.client(mesh) as http:
        response = await http.get("http://payments/")
    assert len(response.content) == size
    mesh.assert_at_rest()

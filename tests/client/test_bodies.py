"""A reply's body ends its attempt exactly once, however the caller lets go of it."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest

import meshsdk.errors as mesh_errors
from meshsdk.client import AsyncMeshTransport, MeshTransport, async_client, client
from tests.client.colours import ONCE, Blocking, Colour, Mesh
from tests.wire.scripted import LONG, Peer, Script, Server, after_request, answering, eventually, reply

Serve = Callable[..., Server]

HALF = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\nhalf" % LONG
SHORT = replace(ONCE, timeouts=replace(ONCE.timeouts, request=0.6, idle=0.2))

half_then_stall = after_request(lambda peer: (peer.send(HALF), peer.stall()))


def _drip(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LONG)
    peer.drip(b"x" * LONG, 0.02)


def _in_turn(peer: Peer, head: bytes, body: bytes) -> None:
    """The head first, so that the reply is out before its body breaks."""
    peer.send(head)
    peer.stopped.wait(0.05)
    peer.send(body)


async def test_read_to_the_end(colour: Colour, serve: Serve) -> None:
    mesh = Mesh(serve(answering(reply(b"hello"))))
    async with colour.client(mesh) as http:
        response = await http.begin("GET", "http://payments/")
        assert mesh.cluster.in_flight == 1, "the slot is held until the body ends"
        assert mesh.calls == []
        assert await colour.read(response) == b"hello"
        assert mesh.cluster.in_flight == 0
        await colour.close(response)
    assert [(call.status, call.flag) for call in mesh.calls] == [(200, "")]
    mesh.assert_at_rest()


async def test_closed_half_way_is_an_ordinary_end(colour: Colour, serve: Serve) -> None:
    server = serve(half_then_stall)
    mesh = Mesh(server)
    async with colour.client(mesh) as http:
        for _ in range(3):
            response = await http.begin("GET", "http://payments/")
            assert await colour.some(response) == b"half"
            await colour.close(response)
            await colour.close(response)
        assert [(call.status, call.flag) for call in mesh.calls] == [(200, "")] * 3
        mesh.assert_at_rest()
        await asyncio.to_thread(eventually, lambda: server.open_connections == 0)


@pytest.mark.parametrize(
    ("script", "ours", "theirs"),
    [
        (after_request(lambda peer: peer.send(HALF)), mesh_errors.ConnectionLost, "ReadError"),
        (half_then_stall, mesh_errors.DeadlineExceeded, "ReadTimeout"),
        (after_request(_drip), mesh_errors.DeadlineExceeded, "ReadTimeout"),
        (
            after_request(
                lambda peer: _in_turn(peer, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"zz\r\n")
            ),
            mesh_errors.BadReply,
            "RemoteProtocolError",
        ),
    ],
    ids=["closes", "stalls", "drips", "garbage"],
)
async def test_broken(colour: Colour, serve: Serve, script: Script, ours: type[Exception], theirs: str) -> None:
    mesh = Mesh(serve(script), plan=SHORT)
    async with colour.client(mesh) as http:
        response = await http.begin("GET", "http://payments/")
        with pytest.raises(ours) as caught:
            await colour.read(response)
        assert isinstance(caught.value, getattr(colour.httpx, theirs))
        assert caught.value.request is response.request
        await colour.close(response)
    (call,) = mesh.calls
    assert call.status == 200
    assert call.flag == caught.value.flag
    assert call.reason.startswith("body-")
    mesh.assert_at_rest()


def test_forgotten(serve: Serve) -> None:
    server = serve(half_then_stall)
    mesh = Mesh(server)
    with client(MeshTransport(mesh.directory)) as http:
        for _ in range(3):
            with pytest.warns(ResourceWarning, match="GET http://payments/ was never closed"):
                _forget(http)
        assert mesh.cluster.in_flight == 1, "the last one waits for the next call"
    mesh.assert_at_rest()
    assert [call.flag for call in mesh.calls] == ["DC"] * 3
    eventually(lambda: server.open_connections == 0)


def _forget(http: httpx.Client) -> None:
    http.send(http.build_request("GET", "http://payments/"), stream=True)
    gc.collect()


async def test_forgotten_in_asyncio(serve: Serve) -> None:
    server = serve(half_then_stall)
    mesh = Mesh(server)
    async with async_client(AsyncMeshTransport(mesh.directory)) as http:
        for _ in range(3):
            with pytest.warns(ResourceWarning, match="never closed"):
                await http.send(http.build_request("GET", "http://payments/"), stream=True)
        await asyncio.sleep(0)
        mesh.assert_at_rest()
        await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    assert [call.flag for call in mesh.calls] == ["DC"] * 3


def test_forgotten_with_its_loop(serve: Serve) -> None:
    mesh = Mesh(serve(half_then_stall), serve(answering()))
    kept: list[httpx.Response] = []

    async def leave() -> None:
        http = async_client(AsyncMeshTransport(mesh.directory))
        while mesh.cluster.in_flight == 0:
            kept.append(await http.send(http.build_request("GET", "http://payments/"), stream=True))

    asyncio.run(leave())
    with pytest.warns(ResourceWarning, match="never closed"):
        kept.clear()
    with client(MeshTransport(mesh.directory)):
        pass
    mesh.assert_at_rest()


async def test_a_collection_inside_a_lock_does_not_deadlock(serve: Serve) -> None:
    mesh = Mesh(serve(half_then_stall))
    with client(MeshTransport(mesh.directory)) as http:
        response = http.send(http.build_request("GET", "http://payments/"), stream=True)
        with mesh.cluster._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del response
            gc.collect()
    mesh.assert_at_rest()


async def test_stopped_iterating_then_closed(colour: Colour, serve: Serve) -> None:
    mesh = Mesh(serve(half_then_stall))
    async with colour.client(mesh) as http:
        response = await http.begin("GET", "http://payments/")
        if isinstance(colour, Blocking):
            for _ in response.iter_bytes():
                break
        else:
            async for _ in response.aiter_bytes():
                break
        gc.collect()
        await asyncio.sleep(0)
        await colour.close(response)
    assert [(call.status, call.flag) for call in mesh.calls] == [(200, "")]
    mesh.assert_at_rest()


def test_an_interrupt_while_reading(serve: Serve) -> None:
    mesh = Mesh(serve(answering(reply(b"hello"))))
    transport = MeshTransport(mesh.directory, engine="httpcore")
    response = transport.handle_request(httpx.Request("GET", "http://payments/"))

    response.stream._reply._response.stream = iter(_Interrupting())
    with pytest.raises(KeyboardInterrupt):
        list(response.stream)
    assert [call.flag for call in mesh.calls] == ["DC"]
    mesh.assert_at_rest()
    transport.close()


class _Interrupting:
    def __iter__(self) -> _Interrupting:
        return self

    def __next__(self) -> bytes:
        raise KeyboardInterrupt

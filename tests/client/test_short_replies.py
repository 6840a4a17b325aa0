"""A short reply that breaks off: the call is sent to another instance, or its caller is told, and nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import httpx
import httpx2
import pytest

import meshsdk.errors as mesh_errors
from tests.client.colours import QUICK, Awaiting, Blocking, Colour, Mesh
from tests.wire.scripted import Script, Server, after_request, answering, eventually, reply

Serve = Callable[..., Server]

URL = "http://payments/"
HEAD = reply(b"hello")[:-5]
IN_TURN = replace(QUICK, balancing=replace(QUICK.balancing, algorithm="round-robin"))

BREAKS: dict[str, tuple[Script, str]] = {
    "closes": (after_request(lambda peer: peer.send(HEAD)), "reset"),
    "closes in the body": (after_request(lambda peer: peer.send(HEAD + b"hel")), "reset"),
    "resets": (after_request(lambda peer: (peer.send(HEAD), peer.arrived(), peer.reset())), "reset"),
    "stalls": (after_request(lambda peer: (peer.send(HEAD), peer.stall())), "timeout"),
}


@pytest.fixture(
    params=[Blocking(httpx), Awaiting(httpx), Blocking(httpx2), Awaiting(httpx2)],
    ids=lambda colour: f"{type(colour).__name__}-{colour.httpx.__name__}",
)
def ours(request: pytest.FixtureRequest) -> Colour:
    """The engines of our own: httpcore hands a reply on at its head."""
    return request.param


@pytest.mark.parametrize("how", BREAKS)
async def test_it_is_sent_again(ours: Colour, serve: Serve, how: str) -> None:
    script, kind = BREAKS[how]
    broken, good = serve(script), serve(answering(reply(b"hello")))
    mesh = Mesh(broken, good, plan=IN_TURN)
    async with ours.client(mesh) as http:
        while not broken.heads:
            response = await http.get(URL)
            assert (response.status_code, response.text) == (200, "hello")
        mesh.assert_at_rest()
        await asyncio.to_thread(eventually, lambda: broken.open_connections == 0)
    assert (mesh.calls[-1].status, mesh.calls[-1].flag, mesh.calls[-1].attempts) == (200, "", 2)
    assert [(attempt.outcome, attempt.decision) for attempt in mesh.attempts] == [(kind, f"retry:{kind}")]
    assert b"x-envoy-attempt-count: 2" in good.heads[-1].lower()


TOLD = {
    "closes in the body": (mesh_errors.ConnectionLost, "in the middle of the body", "ReadError", "UC"),
    "stalls": (mesh_errors.DeadlineExceeded, "went silent", "ReadTimeout", "UT"),
}


@pytest.mark.parametrize("how", TOLD)
async def test_a_post_is_not_sent_twice(ours: Colour, serve: Serve, how: str) -> None:
    error, words, theirs, flag = TOLD[how]
    script, _ = BREAKS[how]
    server = serve(script)
    mesh = Mesh(server)
    async with ours.client(mesh) as http:
        with pytest.raises(error, match=words) as caught:
            await http.begin("POST", URL, content=b"x")
        assert isinstance(caught.value, getattr(ours.httpx, theirs))
        mesh.assert_at_rest()
        await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    assert len(server.heads) == 1
    assert [(call.status, call.flag, call.reason) for call in mesh.calls] == [(None, flag, "not-idempotent")]


async def test_the_only_connection_is_free_again(ours: Colour, serve: Serve) -> None:
    """As many tries as there are breaks, over one connection at a time."""
    script, _ = BREAKS["closes"]
    server = serve(script)
    mesh = Mesh(server, plan=replace(QUICK, limits=replace(QUICK.limits, max_connections_per_endpoint=1)))
    async with ours.client(mesh) as http:
        for _ in range(2):
            with pytest.raises(mesh_errors.ConnectionLost) as caught:
                await http.get(URL)
            assert caught.value.attempts == 3
        server.script = answering(reply(b"hello"))
        assert (await http.get(URL)).text == "hello"
    assert len(server.heads) == 7
    mesh.assert_at_rest()

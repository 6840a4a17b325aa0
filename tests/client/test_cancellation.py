"""Invariant: wherever a call is cancelled, no slot and no connection is left behind, and the call ends once, as DC."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshsdk.client import AsyncMeshTransport, async_client
from meshsdk.client.errors import ConnectionLost
from tests.client.colours import QUICK, AsyncPieces, Awaiting, Blocking, Colour, Mesh
from tests.wire.scripted import Peer, Server, after_request, answering, eventually, reply

Serve = Callable[..., Server]


def slow_everywhere(peer: Peer) -> None:
    """Answer in pieces, so that there are many moments at which to be cancelled; every third time with a 503."""
    count = 0
    while peer.request() is not None:
        count += 1
        answer = reply(b"x" * 300, 503 if count % 3 == 0 else 200)
        for start in range(0, len(answer), 64):
            peer.send(answer[start : start + 64])
            peer.stopped.wait(0.0005)


async def _cancelled_after(mesh: Mesh, steps: int, streamed: bool) -> None:
    async with async_client(AsyncMeshTransport(mesh.directory)) as http:

        async def call() -> None:
            content = AsyncPieces(b"one", b"two") if streamed else b"onetwo"
            async with http.stream("PUT", "http://payments/", content=content) as response:
                async for _ in response.aiter_bytes():
                    await asyncio.sleep(0)

        task = asyncio.ensure_future(call())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        mesh.assert_at_rest()


@pytest.mark.parametrize("streamed", [False, True])
def test_at_every_turn_of_the_loop(serve: Serve, streamed: bool) -> None:
    server = serve(slow_everywhere)
    mesh = Mesh(server)
    for steps in range(60):
        before = len(mesh.calls)
        asyncio.run(_cancelled_after(mesh, steps, streamed))
        assert len(mesh.calls) - before <= 1
        assert all(call.flag in {"DC", "", "URX"} for call in mesh.calls[before:])
    assert any(call.flag == "DC" for call in mesh.calls)
    eventually(lambda: server.open_connections == 0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_many_at_once_at_random_moments(serve: Serve, seed: int) -> None:
    rng = random.Random(seed)
    server = serve(slow_everywhere)
    mesh = Mesh(server)

    async def main() -> None:
        async with async_client(AsyncMeshTransport(mesh.directory)) as http:
            tasks = [asyncio.ensure_future(http.get("http://payments/")) for _ in range(8)]
            for task in tasks:
                await asyncio.sleep(rng.random() * 0.004)
                if rng.random() < 0.7:
                    task.cancel()
            await asyncio.wait(tasks)
            mesh.assert_at_rest()
            assert len(mesh.calls) <= 8

    with asyncio.Runner(loop_factory=rng.choice([asyncio.new_event_loop, uvloop.new_event_loop])) as runner:
        runner.run(main())
    eventually(lambda: server.open_connections == 0)


def test_cancelled_calls_leave_the_pool_usable(serve: Serve) -> None:
    plan = replace(QUICK, limits=replace(QUICK.limits, max_connections_per_endpoint=2))
    mesh = Mesh(serve(answering()), plan=plan)

    async def main() -> None:
        async with async_client(AsyncMeshTransport(mesh.directory)) as http:
            for round_ in range(20):
                tasks = [asyncio.ensure_future(http.get("http://payments/")) for _ in range(6)]
                for _ in range(round_):
                    await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                await asyncio.wait(tasks)
                assert all(task.result().status_code == 200 for task in tasks[1::2])
            mesh.assert_at_rest()

    asyncio.run(main())


@pytest.mark.parametrize("colour", [Blocking(), Awaiting()], ids=["blocking", "asyncio"])
async def test_a_call_ends_with_its_client_and_the_instance_is_not_to_blame(colour: Colour, serve: Serve) -> None:
    server = serve(after_request(Peer.stall))
    mesh = Mesh(server, plan=replace(QUICK, timeouts=replace(QUICK.timeouts, attempt=3.0)))
    async with colour.client(mesh) as http:
        call = asyncio.ensure_future(http.get("http://payments/"))
        await asyncio.to_thread(eventually, lambda: len(server.heads) == 1)
    with pytest.raises(ConnectionLost, match="the engine was closed") as caught:
        await call
    assert (caught.value.attempts, caught.value.reason) == (1, "not-retried-closed")
    assert [attempt.outcome for attempt in mesh.attempts] == ["closed"]
    assert mesh.cluster.states()[0].consecutive == 0
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
    assert server.connections == 1
    mesh.assert_at_rest()

"""Connections that are open before the first call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import httpx2
import pytest

from meshsdk.client import async_client, client
from meshsdk.core.model import Endpoint, Snapshot
from meshsdk.errors import ConfigError, NoEndpoint, UnknownService
from tests.client.colours import QUICK, Awaiting, Blocking, Colour, Mesh
from tests.wire.scripted import Server, answering, eventually, refusing_port

Serve = Callable[..., Server]

COLOURS: list[Colour] = [Blocking(httpx), Awaiting(httpx), Blocking(httpx2), Awaiting(httpx2)]


@pytest.fixture(params=COLOURS, ids=lambda colour: f"{type(colour).__name__}-{colour.httpx.__name__}")
def colour(request: pytest.FixtureRequest) -> Colour:
    return request.param


async def warm(transport: Any, *given: Any) -> None:
    if isinstance(transport, (httpx.BaseTransport, httpx2.BaseTransport)):
        await asyncio.to_thread(transport.warm, *given)
    else:
        await transport.warm(*given)


async def get(colour: Colour, transport: Any) -> int:
    if isinstance(colour, Blocking):
        return (await asyncio.to_thread(client(transport).get, "http://payments/")).status_code
    return (await async_client(transport).get("http://payments/")).status_code


async def close(transport: Any) -> None:
    if hasattr(transport, "aclose"):
        await transport.aclose()
    else:
        transport.close()


async def have(*wanted: tuple[Server, int]) -> None:
    for server, connections in wanted:
        await asyncio.to_thread(eventually, lambda s=server, c=connections: s.open_connections == c)


async def test_each_instance_has_its_connections_and_calls_use_them(colour: Colour, serve: Serve) -> None:
    one, two = serve(answering()), serve(answering())
    transport = colour.transport(Mesh(one, two))
    await warm(transport, "payments", 2)
    await have((one, 2), (two, 2))
    await asyncio.sleep(0.05)  # for the client's end to know that they stand
    for _ in range(4):
        assert await get(colour, transport) == 200
    await warm(transport, "payments", 2)
    assert (one.connections, two.connections) == (2, 2)
    await close(transport)
    await have((one, 0), (two, 0))


async def test_one_to_each_by_default_and_never_more_than_the_policy_allows(colour: Colour, serve: Serve) -> None:
    server = serve(answering())
    transport = colour.transport(
        Mesh(server, plan=replace(QUICK, limits=replace(QUICK.limits, max_connections_per_endpoint=2)))
    )
    await warm(transport, "payments")
    await have((server, 1))
    await warm(transport, "payments", 5)
    await have((server, 2))
    await close(transport)


async def test_instances_that_are_not_healthy_are_left_alone(colour: Colour, serve: Serve) -> None:
    good, sick, lost = serve(answering()), serve(answering()), serve(answering())
    mesh = Mesh(good)
    mesh.cluster.update(Snapshot("payments", (
        Endpoint("a", good.host, good.port),
        Endpoint("b", sick.host, sick.port, healthy=False),
        Endpoint("c", lost.host, lost.port, limbo=True),
    )))  # fmt: skip
    transport = colour.transport(mesh)
    await warm(transport, "payments")
    await have((good, 1))
    assert sick.connections == lost.connections == 0
    await close(transport)


async def test_one_that_cannot_be_reached_does_not_keep_the_others(
    colour: Colour, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(answering())
    with refusing_port() as port, caplog.at_level(logging.WARNING, "meshsdk.client"):
        transport = colour.transport(Mesh(f"127.0.0.1:{port}", server))
        await warm(transport, "payments")
        await have((server, 1))
    if isinstance(colour, Blocking):
        assert f"no connections ahead to 127.0.0.1:{port}: connect-failure" in caplog.text
    await close(transport)


async def test_nothing_to_warm(colour: Colour) -> None:
    transport = colour.transport(Mesh())
    with pytest.raises(NoEndpoint, match="no healthy instance") as caught:
        await warm(transport, "payments")
    assert isinstance(caught.value, colour.httpx.ConnectError)
    with pytest.raises(UnknownService) as unknown:
        await warm(transport, "nobody")
    assert isinstance(unknown.value, colour.httpx.ConnectError)
    await close(transport)


@pytest.mark.parametrize("connections", [0, -1, 1.5, True, "2"])
async def test_no_number(colour: Colour, connections: Any) -> None:
    with pytest.raises(ConfigError, match="connections="):
        await warm(colour.transport(Mesh()), "payments", connections)


async def test_engines_that_open_nothing_ahead(colour: Colour) -> None:
    with pytest.raises(
        ConfigError, match='HttpcoreEngine opens connections only as calls need them; write engine="meshsdk"'
    ):
        await warm(colour.transport(Mesh(), engine="httpcore"), "payments")

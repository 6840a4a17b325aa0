"""Listeners of a file that carry bytes: one upstream out, and the way in of a service that speaks no HTTP."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshsdk.policy.effective import DEFAULTS
from meshsdk.server.inbound import Intake
from meshsdk.telemetry.requests import RequestEnded, RequestStarted
from meshsdk.telemetry.tracing import Tracing
from meshsdk.testing import StaticDirectory
from meshsdk_sidecar.config import Config, LimitsSection, Service, Upstream
from meshsdk_sidecar.proxy.plane import Parts, Plane
from tests.sidecar.proxy.ends import Client, until


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def _ready() -> None:
    """There is no certificate to wait for."""


def _listener() -> tuple[socket.socket, int]:
    made = socket.create_server(("127.0.0.1", 0))
    return made, made.getsockname()[1]


@asynccontextmanager
async def _running(
    connections: int | None = None,
) -> AsyncIterator[tuple[Plane, dict[str, int], list[RequestStarted | RequestEnded]]]:
    """A plane, its ports by way, and what it told of who came in."""
    app = await asyncio.start_server(_echo, "127.0.0.1", 0)
    (way_in, inbound), (way_out, local), (web, outbound) = _listener(), _listener(), _listener()
    told: list[RequestStarted | RequestEnded] = []
    directory = StaticDirectory({"db": [f"127.0.0.1:{inbound}"]})
    upstream = Upstream(service="db", port=local, protocol="tcp")
    config = Config(
        service=Service(name="db", port=app.sockets[0].getsockname()[1], protocol="tcp"),
        upstreams=(upstream,),
        limits=LimitsSection(connections=connections),
    )
    parts = Parts(
        services=directory,
        secure=None,
        generation=lambda: 0,
        ready=_ready,
        intake=Intake(clock=time.monotonic, tracing=Tracing(), sink=told.append),
        own_plan=lambda: DEFAULTS,
        context=lambda: None,
        sink=lambda _: None,
    )
    plane = Plane(config, parts)
    await plane.open({"inbound": [way_in], upstream.name: [way_out], "outbound": [web]})
    yield plane, {"in": inbound, "db": local, "out": outbound}, told
    await plane.close(1.0)
    assert plane.in_flight == 0
    app.close()


async def test_out_by_an_upstream_and_in_to_the_app() -> None:
    """Both are counted while they last, and nothing is left behind."""
    async with _running() as (plane, ports, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", ports["db"])
        writer.write(b"x" * 100_000)
        assert await reader.readexactly(100_000) == b"x" * 100_000
        assert plane.in_flight == 2  # once out, once in
        counted = {(reading.name, *reading.labels): reading.value for reading in plane.readings()}
        assert counted["mesh.tcp.sent", "db", "outbound"] == counted["mesh.tcp.received", "db", "inbound"] == 100_000
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_limit_of_connections_is_of_all_listeners_together() -> None:
    async with _running(connections=4) as (plane, ports, told):
        one, two = await Client.open(ports["in"]), await Client.open(ports["db"])
        for client in (one, two):
            await client.send(b"a")
            assert await client.reader.readexactly(1) == b"a"
        kept = await Client.open(ports["out"])  # the fourth, as the second came in as well as out
        await until(lambda: plane.connected == 4)
        for way in ("in", "db", "out"):
            more = await Client.open(ports[way])
            more.write(b"a")
            assert await more.closed()
            await more.close()
        await until(lambda: plane.connected == 4)
        assert plane.refusals["listener", "connections"] == 3
        assert [(end.status, end.flag) for end in told if isinstance(end, RequestEnded)] == [(503, "UO")]
        await two.close()
        await until(lambda: plane.connected == 2)
        again = await Client.open(ports["in"])
        await again.send(b"a")
        assert await again.reader.readexactly(1) == b"a"
        for client in (one, kept, again):
            await client.close()

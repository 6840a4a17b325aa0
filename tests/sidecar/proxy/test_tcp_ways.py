"""Listeners of a file that carry bytes: one upstream out, and the way in of a service that speaks no HTTP."""

from __future__ import annotations

import asyncio
import socket
import time

from meshsdk.policy.effective import DEFAULTS
from meshsdk.server.inbound import Intake
from meshsdk.telemetry.tracing import Tracing
from meshsdk.testing import StaticDirectory
from meshsdk_sidecar.config import Config, Service, Upstream
from meshsdk_sidecar.proxy.plane import Parts, Plane


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def _ready() -> None:
    """There is no certificate to wait for."""


def _listener() -> tuple[socket.socket, int]:
    made = socket.create_server(("127.0.0.1", 0))
    return made, made.getsockname()[1]


async def test_out_by_an_upstream_and_in_to_the_app() -> None:
    """Both are counted while they last, and nothing is left behind."""
    app = await asyncio.start_server(_echo, "127.0.0.1", 0)
    (way_in, inbound), (way_out, local) = _listener(), _listener()
    directory = StaticDirectory({"db": [f"127.0.0.1:{inbound}"]})
    upstream = Upstream(service="db", port=local, protocol="tcp")
    config = Config(
        service=Service(name="db", port=app.sockets[0].getsockname()[1], protocol="tcp"), upstreams=(upstream,)
    )
    parts = Parts(
        services=directory,
        secure=None,
        generation=lambda: 0,
        ready=_ready,
        intake=Intake(clock=time.monotonic, tracing=Tracing(), sink=lambda _: None),
        own_plan=lambda: DEFAULTS,
        context=lambda: None,
        sink=lambda _: None,
    )
    plane = Plane(config, parts)
    await plane.open({"inbound": [way_in], upstream.name: [way_out]})
    reader, writer = await asyncio.open_connection("127.0.0.1", local)
    writer.write(b"x" * 100_000)
    assert await reader.readexactly(100_000) == b"x" * 100_000
    assert plane.in_flight == 2  # once out, once in
    counted = {(reading.name, *reading.labels): reading.value for reading in plane.readings()}
    assert counted["mesh.tcp.sent", "db", "outbound"] == counted["mesh.tcp.received", "db", "inbound"] == 100_000
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await plane.close(1.0)
    assert plane.in_flight == 0
    app.close()

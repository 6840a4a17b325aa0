"""Clients, apps and certificates for TCP over real sockets, on asyncio and uvloop."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import uvloop

from meshsdk.core.cluster import Cluster
from meshsdk.core.events import AttemptEnded, CallEnded
from meshsdk.core.model import Endpoint, Snapshot
from meshsdk.core.plan import Plan
from meshsdk.identity.contexts import client_context, server_context
from meshsdk.identity.verify import expecting
from meshsdk.policy.effective import DEFAULTS
from meshsdk.server.guard import Guard
from meshsdk.server.inbound import Intake
from meshsdk.telemetry.requests import RequestEnded
from meshsdk.telemetry.tracing import Tracing
from meshsdk.wire.aio.watch import Watch
from meshsdk.wire.security import Secure, Security, in_clear
from meshsdk_sidecar.proxy.inbound import local_plan
from meshsdk_sidecar.proxy.tcp import TcpUpstream
from meshsdk_sidecar.proxy.tcp_inbound import TcpInbound
from tests.identity.certificates import DOMAIN, issue, material

LOOPS: dict[str, Callable[[Coroutine[Any, Any, None]], None]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}
CA = issue("ca")
OTHER_CA = issue("ca")

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

QUICK = replace(
    DEFAULTS,
    retries=replace(DEFAULTS.retries, attempts=3, backoff_base=0.001, backoff_max=0.002),
    balancing=replace(DEFAULTS.balancing, algorithm="round-robin"),
)


def plan(**sections: dict[str, Any]) -> Plan:
    return replace(QUICK, **{name: replace(getattr(QUICK, name), **fields) for name, fields in sections.items()})


def showing(service: str, called: str = "db", ca: Any = CA) -> Secure:
    """How `service` calls."""
    context = client_context(material(service, ca))
    return lambda endpoint, name: Security(context, "", expecting(called, {DOMAIN}))


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def listening(factory: Callable[[], asyncio.BaseProtocol]) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class App:
    """A program that talks TCP.

    Attributes:
        open: connections it has now.
        seen: how many there were.
    """

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.open = self.seen = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[Any] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.seen += 1
        self._writers.add(writer)
        self._tasks.add(asyncio.current_task())
        try:
            await self.talk(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.close()

    @asynccontextmanager
    async def at(self, path: str = "") -> AsyncIterator[Endpoint]:
        if path:
            server = await asyncio.start_unix_server(self.serve, path)
        else:
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        try:
            yield Endpoint("app", path, 0) if path else at(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0.01)


def at(port: int) -> Endpoint:
    return Endpoint(f"e{port}", "127.0.0.1", port)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


class Outbound:
    """A TcpUpstream and what it tells."""

    def __init__(self, *endpoints: Endpoint, plan: Plan = QUICK, secure: Secure = in_clear) -> None:
        self.events: list[Any] = []
        self.cluster = Cluster("db", plan, clock=time.monotonic, rng=random.Random(1), sink=self.events.append)
        self.cluster.update(Snapshot("db", endpoints))
        self.watch = Watch(asyncio.get_running_loop(), time.monotonic)

        async def cluster() -> Cluster:
            return self.cluster

        self.carrier = TcpUpstream("db", cluster, secure=secure, watch=self.watch, clock=time.monotonic)

    def ended(self) -> list[CallEnded]:
        return [event for event in self.events if isinstance(event, CallEnded)]

    def tries(self) -> list[AttemptEnded]:
        return [event for event in self.events if isinstance(event, AttemptEnded)]

    async def over(self, count: int = 1) -> list[CallEnded]:
        await until(lambda: len(self.ended()) == count and self.carrier.idle)
        assert self.cluster.in_flight == 0
        return self.ended()


class Inbound:
    """A TcpInbound and what it tells."""

    def __init__(
        self, app: Endpoint, *, plan: Plan = QUICK, service: str = "db", secured: bool = True, ca: Any = CA, **who: Any
    ) -> None:
        self.events: list[Any] = []
        self.watch = Watch(asyncio.get_running_loop(), time.monotonic)
        self.cluster = Cluster(
            service, local_plan(plan), clock=time.monotonic, rng=random.Random(1), sink=lambda event: None
        )
        self.cluster.update(Snapshot(service, (app,)))
        context: ssl.SSLContext | None = server_context(material(service, ca)) if secured else None
        guard = Guard(lambda: plan, trust_domain=lambda: DOMAIN, **who)
        self.intake = Intake(clock=time.monotonic, tracing=Tracing(), sink=self.events.append, guard=guard)
        self.carrier = TcpInbound(
            service,
            lambda: self.cluster,
            intake=self.intake,
            context=lambda: context,
            strict=lambda: plan.tls == "strict",
            watch=self.watch,
            clock=time.monotonic,
        )

    def ended(self) -> list[RequestEnded]:
        return [event for event in self.events if isinstance(event, RequestEnded)]

    async def over(self, count: int = 1) -> list[RequestEnded]:
        await until(lambda: len(self.ended()) == count and self.carrier.idle and not self.carrier.unfinished)
        assert self.cluster.in_flight == self.intake.in_flight == 0
        return self.ended()


async def ask(port: int, data: bytes = b"") -> bytes:
    """Send `data`, end, and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


async def refused(port: int, data: bytes = b"hello") -> bool:
    """Whether a connection ends by a reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(5):
            await reader.read()
    except ConnectionError:
        return True
    finally:
        writer.close()
    return False

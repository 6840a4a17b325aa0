"""A gateway's front on real sockets, with an app behind it that is every service."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
import yaml

from meshsdk.server.inbound import Intake
from meshsdk.telemetry.tracing import Tracing
from meshsdk.testing import StaticDirectory
from meshsdk_sidecar.gateway.certificate_files import CertificateFiles
from meshsdk_sidecar.gateway.file import load
from meshsdk_sidecar.gateway.front import Front
from meshsdk_sidecar.proxy.plane import Parts
from tests.sidecar.gateway.issuing import Issuer
from tests.sidecar.proxy.ends import App, Client, Message, Script, echoing, until
from tests.sidecar.proxy.rig import PLAN


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test of this folder runs on both loops, but for those that are marked for one."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


ROUTES = [
    {"host": "shop.example.com", "to": "shop"},
    {"host": "shop.example.com", "path": {"prefix": "/api"}, "to": "payments", "strip": "/api"},
]


def get(path: str = "/", host: str = "shop.example.com", *fields: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *fields, "", ""]
    return "\r\n".join(lines).encode()


class Rig:
    """One gateway.

    Attributes:
        apps: what stands behind each service.
        refusals: of the plane.
    """

    def __init__(self, folder: Path, issuer: Issuer, file: dict[str, Any], script: Script, clock: Any) -> None:
        (folder / "gateway.yaml").write_text(yaml.safe_dump(file))
        self.config = load(folder / "gateway.yaml")
        self.issuer = issuer
        self.apps = {name: App(script) for name in {route.to for route in self.config.routes}}
        self.faults: list[dict[str, Any]] = []
        self._clock = clock
        self._clients: list[Client] = []

    async def open(self) -> Rig:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.faults.append(context))
        for app in self.apps.values():
            await app.open()
        where = {name: [app.address] for name, app in self.apps.items()}
        directory = StaticDirectory(where, plan=PLAN, rng=random.Random(7))
        self.files = CertificateFiles(self.config.certificates)
        self.front = Front(self.config, self._parts(directory), lambda: self.files.pairs)
        self.plane, self.certificates = self.front.plane, self.front.certificates
        listening = {name: [socket.create_server(("127.0.0.1", 0))] for name in ("listeners.https", "listeners.http")}
        self.https, self.http = (each[0].getsockname()[1] for each in listening.values())
        await self.front.open(listening)
        return self

    def _parts(self, directory: StaticDirectory) -> Parts:
        async def ready() -> None:
            pass

        clock = {} if self._clock is None else {"clock": self._clock}
        return Parts(
            services=directory,
            secure=None,
            generation=lambda: 0,
            ready=ready,
            intake=Intake(clock=time.monotonic, tracing=Tracing(), sink=lambda _: None),
            own_plan=lambda: PLAN,
            context=lambda: None,
            sink=lambda _: None,
            **clock,
        )

    async def close(self) -> None:
        for client in self._clients:
            client.reset()
        await self.front.close()
        for app in self.apps.values():
            await app.close()
        await asyncio.sleep(0)
        assert self.faults == []

    async def client(self, host: str | None = "shop.example.com", context: ssl.SSLContext | None = None) -> Client:
        """Connect by TLS; a host of None names none."""
        context = context or self.issuer.client()
        if host is None:
            context.check_hostname = False
        client = await Client.open(self.https, ssl=context, server_hostname=host or "")
        self._clients.append(client)
        return client

    async def plain(self, port: int = 0) -> Client:
        """Connect in clear text, to the port for that if no other is given."""
        client = await Client.open(port or self.http)
        self._clients.append(client)
        return client

    async def ask(self, path: str = "/", host: str = "shop.example.com", *fields: str) -> Message:
        """One request on a connection of its own."""
        return await (await self.client()).ask(get(path, host, *fields))

    async def settled(self) -> None:
        """Wait until nobody is connected, and nobody is counted."""
        await until(lambda: not self.plane.connected and not self.front.clients._open)


@pytest.fixture(scope="session")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    issuer = Issuer(tmp_path_factory.mktemp("issuer"))
    issuer.issue("shop", "shop.example.com", "www.example.com")
    issuer.issue("wild", "*.example.org", "example.org")
    return issuer


@pytest.fixture
def file(issuer: Issuer) -> dict[str, Any]:
    """The least that a gateway's file says, with two certificates."""
    pairs = [{"cert": str(issuer.folder / f"{name}.pem"), "key": str(issuer.folder / f"{name}.key")} for name in
             ("shop", "wild")]  # fmt: skip
    listeners = {"http": {"port": 80}}
    return {"service": {"name": "edge"}, "listeners": listeners, "certificates": pairs, "routes": ROUTES}


@pytest.fixture
async def make(tmp_path: Path, issuer: Issuer, file: dict[str, Any]) -> AsyncIterator[Callable[..., Awaitable[Rig]]]:
    """`await make(headers={…})`: a gateway whose file says more; it ends with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened(*, script: Script = echoing, clock: Any = None, **more: Any) -> Rig:
            rig = await Rig(tmp_path, issuer, {**file, **more}, script, clock).open()
            stack.push_async_callback(rig.close)
            return rig

        yield opened


@pytest.fixture
async def rig(make: Callable[..., Awaitable[Rig]]) -> Rig:
    return await make()

"""A plane on real sockets, with an app behind it and services that are that app."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from meshsdk.core.events import CallEnded, Event
from meshsdk.core.plan import Plan
from meshsdk.identity.contexts import client_context, server_context
from meshsdk.identity.verify import expecting
from meshsdk.policy.effective import DEFAULTS
from meshsdk.server.guard import Guard
from meshsdk.server.inbound import Intake
from meshsdk.telemetry.requests import RequestEnded, RequestStarted
from meshsdk.telemetry.tracing import Tracing
from meshsdk.testing import StaticDirectory
from meshsdk.wire.aio.pools import Pools
from meshsdk.wire.security import Security
from meshsdk_sidecar.config import Config, LimitsSection, Service, Upstream
from meshsdk_sidecar.proxy.plane import Parts, Plane
from tests.identity.certificates import DOMAIN, Pair, issue, material
from tests.sidecar.proxy.ends import App, Client, Script, echoing, until

# Nothing of chance: retries follow at once, and no instance is set aside unless a test is about that.
PLAN = replace(
    DEFAULTS,
    retries=replace(DEFAULTS.retries, backoff_base=0.0, backoff_max=0.0),
    outlier=replace(DEFAULTS.outlier, consecutive_failures=0, success_rate=0.0),
    breaker=replace(DEFAULTS.breaker, consecutive_failures=0),
)


def plan(**sections: Any) -> Plan:
    """`plan(retries={"attempts": 1})`."""
    return replace(PLAN, **{name: replace(getattr(PLAN, name), **values) for name, values in sections.items()})


LISTENERS = {"outbound": "out", "inbound": "in", "upstreams.app@127.0.0.1:1": "up", "upstreams.web@127.0.0.1:2": "pair"}
"""By name, the way that begins there: `pair` leads out and in again, over mutual TLS."""


@cache
def _authority() -> Pair:
    return issue("ca")


@cache
def web() -> ssl.SSLContext:
    """How the service shows itself."""
    return server_context(material("web", _authority()))


@cache
def shop() -> Security:
    """How a caller does, and whom it expects."""
    return Security(client_context(material("shop", _authority())), "", expecting("web", {DOMAIN}))


class Rig:
    """The plane, its app (service `app`, and what is behind the way in), and what was told.

    Attributes:
        events: of the core.
        served: requests that came in.
        faults: what the loop was told of exceptions that nobody caught.
    """

    def __init__(
        self,
        script: Script = echoing,
        *,
        policy: Plan = PLAN,
        own: Plan = PLAN,
        limits: dict[str, Any] | None = None,
        guard: Guard | None = None,
        secured: bool = False,
    ) -> None:
        self.app = App(script)
        self.policy = policy
        self.own = own
        self.events: list[Event] = []
        self.served: list[RequestStarted | RequestEnded] = []
        self.faults: list[dict[str, Any]] = []
        self._limits = limits or {}
        self._guard = guard
        self._secured = secured
        self.clients: list[Client] = []

    async def open(self) -> Rig:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.faults.append(context))
        await self.app.open()
        listening = {name: socket.create_server(("127.0.0.1", 0), backlog=4096) for name in LISTENERS}
        self.ports = {way: listening[name].getsockname()[1] for name, way in LISTENERS.items()}
        self.directory = StaticDirectory(
            {"app": [self.app.address], "web": [f"127.0.0.1:{self.ports['in']}"]},
            plan=self.policy,
            sink=self.events.append,
            rng=random.Random(7),
        )
        self.intake = Intake(clock=time.monotonic, tracing=Tracing(), sink=self.served.append, guard=self._guard)
        self.plane = Plane(self._config(), self._parts())
        await self.plane.open({name: [sock] for name, sock in listening.items()})
        return self

    def _config(self) -> Config:
        return Config(
            service=Service(name="web", port=self.app.port),
            limits=LimitsSection(**self._limits),
            upstreams=(Upstream(service="app", port=1), Upstream(service="web", port=2)),
        )

    def _parts(self) -> Parts:
        async def ready() -> None:
            pass

        return Parts(
            services=self.directory,
            secure=lambda _, service: shop() if self._secured and service == "web" else None,
            generation=lambda: 0,
            ready=ready,
            intake=self.intake,
            own_plan=lambda: self.own,
            context=web if self._secured else lambda: None,
            sink=self.events.append,
        )

    async def close(self) -> None:
        for client in self.clients:
            client.reset()
        await self.plane.close()
        await self.app.close()
        await asyncio.sleep(0)
        assert self.faults == []

    async def client(self, way: str = "out", **options: Any) -> Client:
        """Connect."""
        client = await Client.open(self.ports[way], **options)
        self.clients.append(client)
        return client

    # --- what came of it ------------------------------------------------------------------------------

    @property
    def ended(self) -> list[CallEnded]:
        return [event for event in self.events if isinstance(event, CallEnded)]

    @property
    def requests_ended(self) -> list[RequestEnded]:
        return [event for event in self.served if isinstance(event, RequestEnded)]

    @property
    def started(self) -> int:
        return sum(isinstance(event, RequestStarted) for event in self.served)

    @property
    def cluster(self) -> Any:
        return self.directory.cluster("app")

    def idle(self) -> bool:
        """Nothing is held for anybody."""
        clusters = [self.cluster, self.directory.cluster("web"), *self.plane._egress.values()]
        clusters += [self.plane._app] if self.plane._app is not None else []
        return (
            all(cluster.in_flight == 0 and cluster.pending == 0 for cluster in clusters)
            and self.intake.in_flight == 0
            and self.plane.in_flight == 0
            and self.started == len(self.requests_ended)
            and all(not busy for busy in self._busy())
        )

    @property
    def kept(self) -> int:
        """Connections from the way out to the way in, which are clients' too."""
        return sum(len(pool._open) for pool in _pools(self.plane.pools) if pool.service == "web")

    async def settled(self) -> None:
        """Wait until everybody let go of everything: each client's connection, and each request's."""
        try:
            await until(lambda: self.idle() and len(self.plane._open) == self.kept)
        except AssertionError:
            raise AssertionError(self.state()) from None
        assert self.faults == []

    def state(self) -> str:
        return (
            f"in flight {self.cluster.in_flight}, app {self.plane._app and self.plane._app.in_flight}, "
            f"intake {self.intake.in_flight}, plane {self.plane.in_flight}, open {len(self.plane._open)}, "
            f"requests {self.started} begun, {len(self.requests_ended)} ended, carrying {list(self._busy())}"
        )

    def _busy(self) -> Iterator[int]:
        """Connections of each pool that carry something, or leak."""
        for pools in (self.plane.pools, self.plane.app_pools):
            yield from (len(pool._open) - len(pool._idle) + len(pool._waiting) for pool in _pools(pools))


def _pools(pools: Pools) -> list[Any]:
    return [*pools._pools.values(), *pools.retired]

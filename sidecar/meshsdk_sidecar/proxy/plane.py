"""The data plane of one serving process: its listeners, its clients' connections and those to instances.

Everything here runs on one event loop, and nothing here waits for Consul: what is known is read from snapshots.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Final, Protocol

from meshsdk.core.cluster import Cluster
from meshsdk.core.events import Sink
from meshsdk.core.model import Endpoint, Snapshot
from meshsdk.core.plan import Plan
from meshsdk.core.retirement import Retirement
from meshsdk.server.inbound import Intake
from meshsdk.server.listener import Listener
from meshsdk.telemetry.instruments import Reading
from meshsdk.wire.aio.pools import Pools
from meshsdk.wire.http1 import Limits, RequestLimits
from meshsdk.wire.pooling import Pooling
from meshsdk.wire.security import Secure, in_clear
from meshsdk_sidecar.config import Config, LimitsSection
from meshsdk_sidecar.place import Place
from meshsdk_sidecar.proxy.callers import Callers, InClear
from meshsdk_sidecar.proxy.downstream import Downstream
from meshsdk_sidecar.proxy.inbound import InboundDoor, local_plan
from meshsdk_sidecar.proxy.outbound import OutboundDoor, authority
from meshsdk_sidecar.proxy.tcp import Carrier
from meshsdk_sidecar.proxy.tcp_ways import tcp_carrier
from meshsdk_sidecar.proxy.work import Door, Patience

__all__ = ["Parts", "Plane", "Services"]

log = logging.getLogger("meshsdk.sidecar")

# Hosts outside the mesh whose counters are kept; beyond, the one that was used least recently is forgotten.
_EGRESS_KEPT: Final = 256

_METHODS_KEPT: Final = 100

# Where the one endpoint of a cluster is from that stands for a single place: the app, or a host outside.
_FIXED: Final = "fixed"


class Services(Protocol):
    """Where clusters come from; `meshsdk.discovery.Directory` is one."""

    def peek(self, service: str, /) -> Cluster | None:
        """The cluster if it is known already."""
        ...

    async def acluster(self, service: str) -> Cluster:
        """The cluster, after waiting for its first snapshot."""
        ...


@dataclass(slots=True)
class Parts:
    """What a plane stands on; made by whoever runs the process.

    Attributes:
        services: finds clusters.
        secure: how to secure connections to instances; None leaves them in clear text.
        generation: counts our certificates.
        ready: waits, bounded, until there is a certificate or a reason why there is none.
        intake: lets requests in.
        own_plan: the policy of the service itself.
        context: for handshakes of callers; None takes clear text only.
        sink: told of calls.
        defaults: the policy of hosts outside the mesh; None for the built-in one.
    """

    services: Services
    secure: Secure | None
    generation: Callable[[], int]
    ready: Callable[[], Any]
    intake: Intake
    own_plan: Callable[[], Plan]
    context: Callable[[], ssl.SSLContext | None]
    sink: Sink
    clock: Callable[[], float] = time.monotonic
    defaults: Plan | None = None


class Plane:
    """Listens, and carries.

    Args:
        config: the sidecar's file.
        parts: what it stands on.

    Attributes:
        clock: seconds, monotonic.
        intake: lets callers' requests in.
        pools, app_pools: connections to instances, and to the app; after `open`.
        refusals: requests that were not carried, by listener and reason.
    """

    def __init__(self, config: Config, parts: Parts) -> None:
        self.config = config
        self.clock = parts.clock
        self.intake = parts.intake
        self.refusals: Counter[tuple[str, str]] = Counter()
        limits = config.limits
        self._parts = parts
        self._patience = Patience(limits.head_timeout, limits.idle_timeout, limits.stall_timeout)
        self._sizes = _sizes(limits)
        self._most = limits.connections
        self._methods: dict[bytes, str] = {}
        self._retirement = Retirement()
        self._egress: dict[bytes, Cluster] = {}
        self._open: dict[Downstream, None] = {}
        self._retired = False
        self._servers: list[asyncio.Server] = []
        self._listeners: list[Listener | InClear] = []
        self._carriers: dict[Carrier, list[asyncio.Server]] = {}
        self._app_plan: Plan | None = None
        self._app: Cluster | None = None
        self._rng = random.Random()
        self.pools: Pools
        self.app_pools: Pools

    # --- listening ------------------------------------------------------------------------------------

    async def open(self, sockets: Mapping[str, Sequence[socket.socket]]) -> None:
        """Serve; once for the way out, and again for the way in once it is known who may come in.

        Args:
            sockets: listening ones, by the name of the listener in the file.
        """
        if not hasattr(self, "pools"):
            self.pools = Pools(self.clock, Limits(), Pooling(), self._parts.secure or in_clear)
            self.app_pools = Pools(self.clock, Limits(), Pooling(), in_clear)
        loop = asyncio.get_running_loop()
        for name, listening in sockets.items():
            carrier = tcp_carrier(self, self._parts, name)
            if carrier is not None:
                servers = [await loop.create_server(carrier.protocol, sock=sock, backlog=2048) for sock in listening]
                self._carriers[carrier] = servers
            elif name == "inbound":
                await self._open_inbound(listening)
            elif (door := self._door(name)) is not None:
                make = partial(Downstream, door, self.pools.watch, self.clock, self._patience, self._sizes)
                for sock in listening:
                    self._servers.append(await loop.create_server(make, sock=sock, backlog=2048))

    def _door(self, name: str) -> Door | None:
        if name == "outbound":
            return OutboundDoor(self)
        for upstream in self.config.upstreams:
            if upstream.name == name and upstream.protocol == "http":
                return OutboundDoor(self, upstream.service)
        return None

    async def _open_inbound(self, listening: Sequence[socket.socket]) -> None:
        context = self._parts.context()
        make = partial(Downstream, InboundDoor(self), self.pools.watch, self.clock, self._patience, self._sizes)
        callers = Callers(self, make)
        if context is None:
            clear = InClear(callers)
            await clear.open(listening)
            self._listeners.append(clear)
            return
        listener = Listener(
            callers,
            context=context,
            strict=lambda: self._parts.own_plan().tls == "strict",
            host="",
            port=listening[0].getsockname()[1],
        )
        await listener.open(alone=False, sockets=listening)
        self._listeners.append(listener)

    # --- ending ---------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Requests that have not ended, both ways, and connections that carry something else."""
        carried = sum(carrier.in_flight for carrier in self._carriers)
        return carried + sum(1 for downstream in self._open if downstream.work is not None)

    @property
    def connected(self) -> int:
        """Clients' connections that stand, both ways, those whose handshake is under way included."""
        entering = sum(listener.unfinished for listener in self._listeners)
        return len(self._open) + entering + sum(carrier.in_flight for carrier in self._carriers)

    async def retire(self) -> None:
        """Accept no more connections, and end those that there are with their next answer: a client that counts on one
        is told so, where closing it might cross its next request. So are those whose handshake is under way.
        """
        self._retired = True
        for server in (*self._servers, *chain.from_iterable(self._carriers.values())):
            server.close()
        for listener in self._listeners:
            await listener.stop()
        for downstream in tuple(self._open):
            downstream.retire()

    async def drain_inbound(self, seconds: float) -> None:
        """Let no more callers in, and finish what is in flight, within `seconds`."""
        ways_in = [carrier for carrier in self._carriers if carrier.direction == "inbound"]
        await asyncio.gather(*(listener.close(seconds) for listener in self._listeners))
        await self._end_carriers(ways_in, seconds)
        self._listeners.clear()

    async def _end_carriers(self, carriers: Sequence[Carrier], seconds: float) -> None:
        for carrier in carriers:
            for server in self._carriers[carrier]:
                server.close()
        await asyncio.gather(*(carrier.close(seconds) for carrier in carriers))

    async def close(self, seconds: float = 0.0) -> None:
        """Close everything; what is in flight has so many seconds."""
        for server in self._servers:
            server.close()
        await self.drain_inbound(seconds)
        for downstream in tuple(self._open):
            downstream.drain()
        end = self.clock() + seconds
        while self._open and self.clock() < end:  # noqa: ASYNC110 - connections tell nobody when the last is gone
            await asyncio.sleep(0.02)
        for downstream in tuple(self._open):
            downstream.transport.abort()
        await self._end_carriers(tuple(self._carriers), max(0.0, end - self.clock()))
        if hasattr(self, "pools"):  # else it was never opened
            await self.pools.close()
            await self.app_pools.close()

    def readings(self) -> Iterator[Reading]:
        """What only we count: requests that were not carried, connections and bytes that are not HTTP's."""
        for labels, count in tuple(self.refusals.items()):
            yield Reading("mesh.sidecar.refused", labels, count)
        for carrier in self._carriers:
            yield from carrier.readings()

    # --- for the doors --------------------------------------------------------------------------------

    def opened(self, downstream: Downstream) -> None:
        """A client's connection stands."""
        self._open[downstream] = None
        if self._retired:
            downstream.retire()
        if self.crowded():
            downstream.transport.abort()

    def crowded(self) -> bool:
        """Whether the connection that was just opened, at whichever listener, is one too many; it is counted then."""
        if self._most is None or len(self._open) + sum(carrier.in_flight for carrier in self._carriers) <= self._most:
            return False
        self.refused("listener", "connections", f"more than {self._most} connections (limits.connections)")
        return True

    def closed(self, downstream: Downstream) -> None:
        """It is gone."""
        self._open.pop(downstream, None)

    def connections(self, door: type) -> Iterator[Downstream]:
        """The connections that came in by doors of a kind."""
        return (downstream for downstream in tuple(self._open) if isinstance(downstream.door, door))

    def refused(self, listener: str, reason: str, why: str) -> None:
        """A request was not carried."""
        self.refusals[listener, reason] += 1
        log.info("%s: refused (%s): %s", listener, reason, why)

    def method(self, method: bytes) -> str:
        """A method as text."""
        known = self._methods.get(method)
        if known is None:
            known = method.decode("ascii")
            if len(self._methods) < _METHODS_KEPT:
                self._methods[method] = known
        return known

    def peek(self, service: str) -> Cluster | None:
        """A service that is known already."""
        return self._parts.services.peek(service)

    async def look_up(self, service: str) -> Cluster:
        """One that is not; raises `MeshError` where nothing is known of it."""
        await self._parts.ready()
        return await self._parts.services.acluster(service)

    def follow(self, cluster: Cluster) -> Pools:
        """The connections to a service; those that must not be used any more are let go."""
        if cluster.snapshot.source == _FIXED:
            return self.pools  # a host outside: there is nothing about it that changes
        if gone := self._retirement.due(cluster, self._parts.generation()):
            self.pools.retire(gone, cluster.service)
        return self.pools

    def own_plan(self) -> Plan:
        """The policy of the service beside us."""
        return self._parts.own_plan()

    def egress(self, host: bytes) -> Cluster:
        """A host outside the mesh, as a cluster of one."""
        cluster = self._egress.pop(host, None)
        if cluster is None:
            name, port = authority(host)
            cluster = self._single("egress", Endpoint(host.decode("latin-1"), name, port), self._parts.sink)
            if len(self._egress) >= _EGRESS_KEPT:
                del self._egress[next(iter(self._egress))]
        self._egress[host] = cluster
        return cluster

    def app(self) -> Cluster:
        """The app beside us, under the limits of its policy."""
        plan = self._parts.own_plan()
        if self._app is None:
            self._app = self._single(
                self.config.service.name, _endpoint(self.config.service.place), lambda _: None, local_plan(plan)
            )
        elif plan is not self._app_plan:
            self._app.adopt(local_plan(plan))
        self._app_plan = plan
        return self._app

    def _single(self, name: str, endpoint: Endpoint, sink: Sink, plan: Plan | None = None) -> Cluster:
        cluster = Cluster(
            name, plan or local_plan(self._parts.defaults or _built_in()), clock=self.clock, rng=self._rng, sink=sink
        )
        cluster.update(Snapshot(name, (endpoint,), _FIXED))
        return cluster


def _endpoint(place: Place | None) -> Endpoint:
    assert place is not None  # there is a way in only where there is an app
    if place.socket:
        return Endpoint(str(place), place.socket, 0)
    return Endpoint(str(place), place.address, place.port)


def _built_in() -> Plan:
    from meshsdk.policy.effective import DEFAULTS  # brings all sections, which a worker does without

    return DEFAULTS


def _sizes(limits: LimitsSection) -> RequestLimits:
    usual = RequestLimits()
    return replace(
        usual,
        head=limits.head,
        line=min(usual.line, limits.head),
        field=min(usual.field, limits.head),
        body=usual.body if limits.body is None else limits.body,
    )

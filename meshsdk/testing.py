"""For tests of programs that use the mesh: a clock that stands still and services at fixed addresses."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping

from meshsdk.core.cluster import Cluster
from meshsdk.core.events import Event, Sink
from meshsdk.core.model import Endpoint, Snapshot
from meshsdk.core.plan import Plan
from meshsdk.errors import ConfigError, UnknownService
from meshsdk.policy.effective import DEFAULTS

__all__ = ["FakeClock", "StaticDirectory"]


class FakeClock:
    """A clock that moves only when told, in seconds; hand in `clock` for `clock=` and `clock.sleep` for `sleep=`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Tell the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move on by `seconds` at once."""
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        """The same to be awaited."""
        self.now += seconds


class StaticDirectory:
    """Services at fixed addresses, in the place of discovery.

        directory = StaticDirectory({"payments": ["127.0.0.1:8001", "[::1]:8002"]})
        http = httpx.Client(transport=MeshTransport(directory))

    Args:
        services: addresses by service name.
        plan: the policy for all of them; the built-in defaults if not given.
        clock, rng, sink: what clusters are made with; real time, any chance and nobody listening if not given.

    Raises:
        ConfigError: an address is not `host:port`.
    """

    def __init__(
        self,
        services: Mapping[str, Iterable[str]],
        *,
        plan: Plan = DEFAULTS,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        sink: Sink | None = None,
    ) -> None:
        self._clusters: dict[str, Cluster] = {}
        self._plan = plan
        rng, sink = rng or random.Random(), sink or _unheard
        for service, addresses in services.items():
            self._clusters[service] = Cluster(service, plan, clock=clock, rng=rng, sink=sink)
            self.place(service, addresses)

    def place(self, service: str, addresses: Iterable[str]) -> None:
        """Put `service` at other addresses from now on."""
        endpoints = tuple(_endpoint(address) for address in addresses)
        self._clusters[service].update(Snapshot(service, endpoints))

    def peek(self, service: str) -> Cluster | None:
        """The cluster of a service, None for one that is not known."""
        return self._clusters.get(service)

    def cluster(self, service: str) -> Cluster:
        """The cluster of a service; raises `UnknownService`."""
        try:
            return self._clusters[service]
        except KeyError:
            known = ", ".join(sorted(self._clusters)) or "none"
            raise UnknownService(f"not in this directory, which has: {known}", service=service) from None

    async def acluster(self, service: str) -> Cluster:
        """The same from asyncio."""
        return self.cluster(service)

    def settled_plan(self) -> Plan:
        """The policy; what it says of `egress` holds for calls to hosts that are no service."""
        return self._plan

    async def asettled_plan(self) -> Plan:
        """The same from asyncio."""
        return self._plan


def _unheard(event: Event) -> None:
    del event


def _endpoint(address: str) -> Endpoint:
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit()):
        raise ConfigError(f"{address!r}: write host:port, such as 127.0.0.1:8001 or [::1]:8001")
    return Endpoint(address, host.removeprefix("[").removesuffix("]"), int(port))

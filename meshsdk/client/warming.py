"""Connections opened ahead of a service's first call: to which instances, how many, and on which engines."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import TypeVar

from meshsdk.core.cluster import Cluster
from meshsdk.core.model import Endpoint, TransportFailure
from meshsdk.errors import ConfigError, NoEndpoint
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.blocking import BlockingEngine
from meshsdk.wire.engine import Bounds

__all__ = ["awarm", "check", "warm"]

_log = logging.getLogger("meshsdk.client")


E = TypeVar("E", BlockingEngine, AsyncioEngine)


def check(engine: object, wanted: type[E], connections: int) -> E:
    """The engine, if it can open so many connections ahead.

    Raises:
        ConfigError: it opens connections only as calls need them, or the number is none.
    """
    if not isinstance(engine, wanted):
        raise ConfigError(
            f'warm: {type(engine).__name__} opens connections only as calls need them; write engine="meshsdk", or '
            f"leave the warming out"
        )
    if isinstance(connections, bool) or not isinstance(connections, int) or connections < 1:
        raise ConfigError(f"warm: connections={connections!r}: give a number of connections to each instance, from 1")
    return engine


def warm(engine: BlockingEngine, cluster: Cluster, connections: int) -> None:
    """Open connections to each instance, one after the other; one that cannot be reached is left to the calls."""
    for endpoint, bounds in _targets(cluster):
        try:
            engine.warm(endpoint, connections, bounds, cluster.service)
        except TransportFailure as error:
            _log.warning("%s: no connections ahead to %s: %s", cluster.service, endpoint, error)


async def awarm(engine: AsyncioEngine, cluster: Cluster, connections: int) -> None:
    """Begin to open connections to each instance, all at once."""
    for endpoint, bounds in _targets(cluster):
        await engine.warm(endpoint, connections, bounds, cluster.service)


def _targets(cluster: Cluster) -> Iterator[tuple[Endpoint, Bounds]]:
    """Those that calls are sent to while enough are healthy, whichever of them the balancing would choose first."""
    endpoints = [endpoint for endpoint in cluster.snapshot.endpoints if endpoint.healthy and not endpoint.limbo]
    plan = cluster.plan
    if not endpoints:
        problem = cluster.snapshot.problem or "there is no healthy instance to open connections to"
        raise NoEndpoint(problem, service=cluster.service, policy=plan.version)
    bounds = Bounds(connect=plan.timeouts.connect or math.inf, max_connections=plan.limits.max_connections_per_endpoint)
    return ((endpoint, bounds) for endpoint in endpoints)

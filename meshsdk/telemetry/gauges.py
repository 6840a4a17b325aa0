"""The gauges of one destination, read when somebody collects."""

from __future__ import annotations

import time
from collections.abc import Iterator

from meshsdk.core.cluster import Cluster
from meshsdk.telemetry.instruments import Reading

__all__ = ["readings_of"]


def readings_of(cluster: Cluster) -> Iterator[Reading]:
    """Calls in flight, retries left, endpoints by state."""
    labels = (cluster.service,)
    yield Reading("mesh.client.in_flight", labels, cluster.in_flight)
    yield Reading("mesh.client.retry_budget", labels, cluster.budget_balance)
    now = time.monotonic()
    counts = dict.fromkeys(("healthy", "unhealthy", "ejected", "limbo"), 0)
    for state in cluster.states():
        endpoint = state.endpoint
        counts[
            "limbo"
            if endpoint.limbo
            else "unhealthy"
            if not endpoint.healthy
            else "ejected"
            if state.ejected_until > now
            else "healthy"
        ] += 1
    for name, count in counts.items():
        yield Reading("mesh.client.endpoints", (cluster.service, name), count)

"""Bounds on what one process has under way towards one service. Counts are exact; the cluster's lock guards them."""

from __future__ import annotations

from collections.abc import Iterable

from meshsdk.core.plan import Limits
from meshsdk.core.state import EndpointState

__all__ = ["Bulkhead"]


class Bulkhead:
    """Attempts under way and, of those, the ones that must wait for a connection.

    HTTP/1.1 carries one request per connection, so what an endpoint has in flight above `max_connections_per_endpoint`
    is waiting. 0 is no limit.

    Attributes:
        in_flight: attempts open, bodies included.
        pending: the part of them that is above its endpoint's connections.
    """

    __slots__ = ("_connections", "_max_pending", "_max_requests", "in_flight", "limits", "pending")

    def __init__(self, limits: Limits) -> None:
        self.in_flight = 0
        self.pending = 0
        self.adopt(limits, ())

    def adopt(self, limits: Limits, states: Iterable[EndpointState]) -> None:
        """Follow other limits; who waits is counted anew over `states`."""
        self.limits = limits
        self._connections = limits.max_connections_per_endpoint or float("inf")
        self._max_requests = limits.max_requests or float("inf")
        self._max_pending = limits.max_pending or float("inf")
        waiting = (state.inflight - limits.max_connections_per_endpoint for state in states)
        self.pending = sum(max(0, n) for n in waiting) if limits.max_connections_per_endpoint else 0

    def take(self, state: EndpointState) -> str:
        """Count one attempt to `state`, or name the limit that forbids it: `max-requests` or `max-pending`."""
        if self.in_flight >= self._max_requests:
            return "max-requests"
        if state.inflight >= self._connections:
            if self.pending >= self._max_pending:
                return "max-pending"
            self.pending += 1
        self.in_flight += 1
        state.inflight += 1
        return ""

    def why(self, limit: str, state: EndpointState) -> str:
        """One line for the person whose call `limit` refused."""
        if limit == "max-requests":
            return f"{self.in_flight} requests are under way and limits.max_requests is {self.limits.max_requests}"
        return (
            f"all {self.limits.max_connections_per_endpoint} connections to {state.endpoint} are busy, "
            f"{self.pending} requests wait and limits.max_pending is {self.limits.max_pending}"
        )

    def give_back(self, state: EndpointState) -> None:
        """Count one attempt to `state` off."""
        if state.inflight > self._connections:
            self.pending -= 1
        state.inflight -= 1
        self.in_flight -= 1

    def emptied(self) -> Bulkhead:
        """The same limits with nothing under way."""
        return Bulkhead(self.limits)

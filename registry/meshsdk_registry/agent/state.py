"""The dev agent's state, pure: catalog, keys, and the TTL checks of its own node; the clock is an argument."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from meshsdk_registry.agent.authority import Authority, Lifetimes
from meshsdk_registry.agent.catalog import Catalog, Check, Node, Service
from meshsdk_registry.agent.intentions import Intentions
from meshsdk_registry.agent.journal import Journal
from meshsdk_registry.agent.keys import Keys

__all__ = ["MAINTENANCE", "MIN_DEREGISTER", "State", "Ttl"]

MAINTENANCE = "_service_maintenance:"
MIN_DEREGISTER = 60.0
"""Seconds; Consul raises a lower `DeregisterCriticalServiceAfter` to this."""

SERVER = "consul"


@dataclass(slots=True)
class Ttl:
    """The clock side of a TTL check.

    Attributes:
        ttl: seconds it stays as it is without an update.
        expires: when it becomes critical; None once it has expired.
        deregister_after: seconds of critical after which its service goes; 0 keeps it.
        critical_since: when it became critical, None while it is not.
    """

    ttl: float
    expires: float | None
    deregister_after: float = 0.0
    critical_since: float | None = None
    last_output: str = ""

    @property
    def reaped_at(self) -> float | None:
        """When its service is deregistered, if nothing happens before."""
        if not self.deregister_after or self.critical_since is None:
            return None
        return self.critical_since + self.deregister_after


class State:
    """All the dev agent knows. `watcher` is called after each change that moved an index.

    Args:
        clock: monotonic seconds, for the CA, whose certificates are made when they are asked for.
        intention_default: `allow` or `deny` where no intention is about a caller.
    """

    def __init__(
        self,
        node: str = "dev",
        datacenter: str = "dc1",
        watcher: Callable[[], None] = lambda: None,
        lifetimes: Lifetimes | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        intention_default: str = "allow",
    ) -> None:
        self.intention_default = intention_default
        self.node = node
        self.datacenter = datacenter
        self.journal = Journal(watcher)
        self.catalog = Catalog(self.journal)
        self.keys = Keys(self.journal)
        self.intentions = Intentions(self.journal)
        self.authority = Authority(self.journal, datacenter, lifetimes or Lifetimes(), clock=clock)
        self.ttls: dict[str, Ttl] = {}
        self.catalog.put_node(Node(node, "127.0.0.1", "00000000-0000-4000-8000-000000000001", {}))
        self.catalog.put_service(Service(node, SERVER, SERVER, port=8300, meta={}))
        self.catalog.put_check(
            Check(node, "serfHealth", "Serf Health Status", "passing", output="Agent alive and reachable")
        )

    # --- the agent's own services and checks --------------------------------------------------------

    def local_services(self) -> dict[str, Service]:
        """The services registered with this agent, by id."""
        return {service.id: service for service in self.catalog.on(self.node) if service.id != SERVER}

    def local_checks(self) -> dict[str, Check]:
        """The checks registered with this agent, by id."""
        return {check.id: check for check in self.catalog.node_checks(self.node)[1] if check.id != "serfHealth"}

    def register(self, service: Service, checks: list[tuple[Check, Ttl | None]], now: float) -> None:
        """Register a service with its checks; a check that was there keeps its status and output."""
        self.catalog.put_service(service)
        for check, ttl in checks:
            old = self.catalog.checks.get((self.node, check.id))
            kept = replace(check, status=old.status, output=old.output) if old else check
            self.catalog.put_check(kept)
            self.ttls.pop(check.id, None)
            if ttl:
                ttl.expires = now + ttl.ttl
                ttl.critical_since = now if kept.status == "critical" else None
                ttl.last_output = kept.output
                self.ttls[check.id] = ttl

    def deregister(self, service_id: str) -> None:
        """Remove a service with its checks; nothing happens if it is not there."""
        for check in self.local_checks().values():
            if check.service_id == service_id:
                self.ttls.pop(check.id, None)
        if service_id in self.local_services():
            self.catalog.drop_service(self.node, service_id)

    def update_check(self, check_id: str, status: str, output: str, now: float) -> None:
        """Take a heartbeat; LookupError with Consul's words for a check without TTL."""
        ttl = self.ttls.get(check_id)
        if ttl is None:
            raise LookupError(f'CheckID "{check_id}" does not have associated TTL')
        ttl.expires = now + ttl.ttl
        ttl.last_output = output
        self._set_check(check_id, ttl, status, output, now)

    def drop_check(self, check_id: str) -> None:
        """Remove a check of this agent."""
        self.ttls.pop(check_id, None)
        self.catalog.drop_check(self.node, check_id)

    def maintain(self, service_id: str, *, enable: bool, reason: str) -> None:
        """Put a service into maintenance or take it out; LookupError for an unknown one. The first reason stays."""
        service = self.local_services().get(service_id)
        if service is None:
            raise LookupError(f'No service registered with ID "{service_id}"')
        check_id = MAINTENANCE + service_id
        if not enable:
            self.catalog.drop_check(self.node, check_id)
        elif (self.node, check_id) not in self.catalog.checks:
            name = "Service Maintenance Mode"
            notes = reason or "Maintenance mode is enabled for this service, but no reason was given."
            self.catalog.put_check(Check(self.node, check_id, name, "critical", notes, "", service_id, "maintenance"))

    # --- time ---------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Let TTLs run out, drop services that were critical for too long, and renew certificates."""
        self.authority.renew(now)
        for check_id, ttl in list(self.ttls.items()):
            if ttl.expires is not None and now >= ttl.expires:
                self._set_check(check_id, ttl, "critical", _expired(ttl.last_output), now)
                ttl.expires = None
            if ttl.reaped_at is not None and now >= ttl.reaped_at:
                self.deregister(self.catalog.checks[self.node, check_id].service_id)

    def next_deadline(self) -> float | None:
        """When `expire` has something to do next."""
        times = [time for ttl in self.ttls.values() for time in (ttl.expires, ttl.reaped_at) if time is not None]
        renewal = self.authority.next_renewal()
        return min(times if renewal is None else [*times, renewal], default=None)

    def _set_check(self, check_id: str, ttl: Ttl, status: str, output: str, now: float) -> None:
        if status != "critical":
            ttl.critical_since = None
        elif ttl.critical_since is None:
            ttl.critical_since = now
        old = self.catalog.checks[self.node, check_id]
        self.catalog.put_check(replace(old, status=status, output=output))


def _expired(last_output: str) -> str:
    return f"TTL expired (last output before timeout follows): {last_output}" if last_output else "TTL expired"

"""What the sidecar's own pages show, as plain values: nothing here is secret, and nothing changes anything."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from meshsdk.core.state import EndpointState

if TYPE_CHECKING:
    from meshsdk.core.cluster import Cluster
    from meshsdk.discovery import ServiceStatus
    from meshsdk_sidecar.mesh import SidecarMesh

__all__ = ["LEVELS", "certs", "clusters", "config", "levels", "of_workers", "policy", "set_level"]

_SECRET = frozenset({"consul_token"})

LEVELS = ("debug", "info", "warning", "error")


def clusters(mesh: SidecarMesh) -> list[dict[str, Any]]:
    """The services that are called: what is known of each, how old it is, and how its instances do."""
    return [_cluster(status, mesh.directory.peek(status.service)) for status in mesh.status()]


def of_workers(found: list[dict[str, Any]], calls: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The same where workers call: their counts together, and what each of them knows.

    Args:
        found: `clusters` of the control process, which calls nobody.
        calls: of each worker, by service.
    """
    for each in found:
        workers = calls.get(each["service"], [])
        each["in_flight"] = sum(one["in_flight"] for one in workers)
        each["pending"] = sum(one["pending"] for one in workers)
        for name in ("breaker", "retry_budget"):
            each.pop(name, None)
        each["workers"] = workers
    return found


def _cluster(status: ServiceStatus, cluster: Cluster | None) -> dict[str, Any]:
    """Facts of the registry by the watch, and of calls where there were any since the service was last cold."""
    calls: dict[str, Any] = {}
    if cluster is not None:
        calls = {
            "in_flight": cluster.in_flight,
            "pending": cluster.pending,
            "breaker": cluster.breaker_state,
            "retry_budget": round(cluster.budget_balance, 2),
        }
    now = time.monotonic()
    known = {state.endpoint.key: state for state in ([] if cluster is None else cluster.states())}
    return {
        "service": status.service,
        "source": status.source or "nothing is known yet",
        "connected": status.connected,
        "watched": status.watched,
        "age": None if status.age == float("inf") else round(status.age, 3),
        "error": status.error,
        "policy": status.policy,
        "policy_problem": status.policy_problem,
        "refusals": status.refusals,
        **calls,
        "endpoints": [_endpoint(known.get(each.key) or EndpointState(each), now) for each in status.endpoints],
    }


def _endpoint(state: EndpointState, now: float) -> dict[str, Any]:
    endpoint = state.endpoint
    return {
        "address": str(endpoint),
        "healthy": endpoint.healthy,
        "limbo": endpoint.limbo,
        "ejected_for": round(max(0.0, state.ejected_until - now), 3),
        "in_flight": state.inflight,
        "latency_ms": round(state.ewma * 1000, 3),
        "consecutive_failures": state.consecutive,
        "zone": endpoint.zone,
        "weight": endpoint.weight,
        "meta": dict(endpoint.meta),
    }


def config(mesh: SidecarMesh) -> dict[str, Any]:
    """The file as it was understood, defaults included, and the settings that came of it and the environment."""
    settings = {
        field.name: "(hidden)" if field.name in _SECRET and getattr(mesh.settings, field.name) else value
        for field in dataclasses.fields(mesh.settings)
        for value in [getattr(mesh.settings, field.name)]
    }
    return {"file": dataclasses.asdict(mesh.config), "settings": settings}


def certs(mesh: SidecarMesh) -> dict[str, Any]:
    """Who we are and until when; never the key."""
    identity = mesh.identity
    if identity is None:
        return {"state": "off", "reason": "identity is turned off by its setting"}
    state, material = identity.state, identity.material
    found: dict[str, Any] = {"state": state.name, "reason": state.reason, "renewals": identity.renewals}
    if material is not None:
        found |= {
            "spiffe_id": str(material.spiffe_id),
            "trust_domains": sorted(identity.trust_domains),
            "serial": material.serial,
            "not_before": material.not_before.isoformat(),
            "not_after": material.not_after.isoformat(),
            "chain": material.chain_pem,
            "roots": material.roots_pem,
        }
    return found


def policy(mesh: SidecarMesh) -> dict[str, Any]:
    """The policy in force for the service itself and for each service it calls."""
    return {
        "own": _given(mesh.directory.own_plan()),
        "called": {
            status.service: {"version": status.policy, "problem": status.policy_problem} for status in mesh.status()
        },
    }


def _given(value: Any) -> Any:
    """What a dataclass was made of, without what it found out for itself."""
    if dataclasses.is_dataclass(value):
        return {each.name: _given(getattr(value, each.name)) for each in dataclasses.fields(value) if each.init}
    return [_given(each) for each in value] if isinstance(value, tuple) else value


def levels() -> dict[str, str]:
    """The log levels of our loggers, by name."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "meshsdk"]
    return {"meshsdk": _level("meshsdk")} | {name: _level(name) for name in sorted(names)}


def set_level(level: str, names: Iterable[str] = ("meshsdk",)) -> None:
    """Log from this level on."""
    for name in names:
        logging.getLogger(name).setLevel(level.upper())


def _level(name: str) -> str:
    return logging.getLevelName(logging.getLogger(name).getEffectiveLevel()).lower()

"""Which registered instances can be called, and why the others cannot. Pure.

Rule 1: a mistake in one registration costs that instance, never its neighbours, and is said.
Rule 2: maintenance and weight 0 are somebody's word, not a mistake: such an instance is no endpoint, not even in panic.
Rule 3: a critical instance is an endpoint that is not healthy: panic mode may need it.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from meshsdk.core.model import Endpoint
from meshsdk_registry import Health, Instance

__all__ = ["Listing", "endpoints", "read"]

# RFC 1123, 2.1, and the underscore that Docker's and Kubernetes' names may hold.
_HOST = re.compile(r"(?!-)[A-Za-z0-9_.-]{1,253}(?<![-.])\.?")


@dataclass(frozen=True, slots=True)
class Listing:
    """One answer of the registry, sorted.

    Attributes:
        endpoints: what can be called, in the registry's order.
        refusals: what cannot, one line each with the reason.
        resting: how many instances are in maintenance.
        named: `node/id` of all instances listed, callable or not.
    """

    endpoints: tuple[Endpoint, ...]
    refusals: tuple[str, ...] = ()
    resting: int = 0
    named: frozenset[str] = frozenset()

    @property
    def problem(self) -> str:
        """Why nothing can be called although instances are registered; empty otherwise."""
        if self.endpoints or not (self.refusals or self.resting):
            return ""
        resting = [f"{self.resting} in maintenance"] if self.resting else []
        return "; ".join(["no registered instance can be called", *resting, *self.refusals[:3]]) + (
            f"; and {len(self.refusals) - 3} more" if len(self.refusals) > 3 else ""
        )


def endpoints(instances: Iterable[Instance]) -> tuple[tuple[Endpoint, ...], tuple[str, ...]]:
    """Return what can be called, and for what cannot one line each with the reason."""
    listing = read(instances)
    return listing.endpoints, listing.refusals


def read(instances: Iterable[Instance]) -> Listing:
    """Sort the instances of one service into endpoints, refusals and those that rest."""
    found: dict[str, Endpoint] = {}
    refusals: list[str] = []
    twice: Counter[str] = Counter()
    resting = 0
    named = set()
    for instance in instances:
        named.add(f"{instance.node}/{instance.id}")
        if instance.health is Health.MAINTENANCE:
            resting += 1
        elif fault := _fault(instance):
            refusals.append(f"{instance.id} on {instance.node}: {fault}")
        elif (endpoint := _endpoint(instance)).key in found:
            twice[f"{instance.id} on {instance.node}"] += 1
        else:
            found[endpoint.key] = endpoint
    refusals += [f"{name}: listed {count + 1} times with {_SAME}; one is used" for name, count in twice.items()]
    return Listing(tuple(found.values()), tuple(refusals), resting, frozenset(named))


_SAME = "the same address and port"


def _endpoint(instance: Instance) -> Endpoint:
    address = _bare(instance.address)
    return Endpoint(
        key=f"{instance.node}/{instance.id}/{address}:{instance.port}",
        address=address,
        port=instance.port,
        weight=float(instance.weight),
        zone=instance.meta.get("zone", ""),
        healthy=instance.health is not Health.CRITICAL,
        meta=instance.meta,
    )


def _fault(instance: Instance) -> str:
    """Return why nobody could call it, with what to register instead; empty if one can."""
    if not instance.address:
        return "no address; register one that callers reach"
    if wrong := _address_fault(_bare(instance.address)):
        return wrong
    if not 0 < instance.port < 65536:
        return f"port {instance.port}; register the one it listens on, 1 to 65535"
    if instance.weight <= 0:
        return f"weight {instance.weight}: out of rotation; give it 1 or more to bring it back"
    return ""


def _address_fault(address: str) -> str:
    try:
        if not ipaddress.ip_address(address).is_unspecified:
            return ""
    except ValueError:
        # Digits and dots alone are no host name but an address with a mistake.
        if _HOST.fullmatch(address) and not re.fullmatch(r"[\d.]+", address):
            return ""
        return f"address {address!r} is neither an IP address nor a host name; register one of them, the port apart"
    return f"address {address!r} is where a server listens, not where it is reached; register its own address"


def _bare(address: str) -> str:
    """An IPv6 address may be registered in the brackets that URLs need."""
    return address[1:-1] if address.startswith("[") and address.endswith("]") else address

"""What Consul knows of services, for `services`, `endpoints` and `check`: health, faults, the policy obeyed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from meshsdk.cli.consul import lookup
from meshsdk.cli.documents import Documents
from meshsdk.core.model import TLS_META
from meshsdk.discovery.endpoints import endpoints
from meshsdk.errors import ConfigError
from meshsdk_registry import Check, Consul, Health, Instance

__all__ = ["Service", "ailments", "obeyed", "service", "services"]

SAYS = "policies: "
"""How a process's health check begins: what it obeys towards the services it calls."""

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Service:
    """One service.

    Attributes:
        obeys: policy versions that an instance says it obeys, by node and id.
        problem: why Consul could not be asked for it.
        strict: its policy is `tls.mode: strict`, so no call goes to an instance that takes clear text only.
    """

    name: str
    instances: tuple[Instance, ...] = ()
    obeys: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    problem: str = ""
    strict: bool = False

    @property
    def passing(self) -> int:
        """How many instances calls go to."""
        found = endpoints(self.instances)[0]
        return sum(endpoint.healthy and not (self.strict and not endpoint.meta.get(TLS_META)) for endpoint in found)

    def problems(self) -> list[str]:
        """One line for each instance that gets no calls, and for each check that warns."""
        asked = [self.problem] if self.problem else []
        ailing = [line for each in self.instances for line in ailments(each)]
        return [*asked, *endpoints(self.instances)[1], *ailing, *self.unencrypted().values()]

    def unencrypted(self) -> dict[tuple[str, str], str]:
        """One line for each instance that could be called, were its policy not strict; by node and id."""
        return {
            (each.node, each.id): f"{each.id} on {each.node}: {_UNENCRYPTED}"
            for each in self.instances
            if self.strict and not each.meta.get(TLS_META) and endpoints((each,))[0]
        }


_UNENCRYPTED = "registered as taking clear text only, and tls.mode is strict in its policy: every call is refused"


def ailments(instance: Instance) -> list[str]:
    """What an instance's checks say that is not well."""
    if instance.health is Health.PASSING:
        return []
    state = "in maintenance" if instance.health is Health.MAINTENANCE else instance.health.value
    said = " ".join(instance.output.split())[:300]
    return [f"{instance.id} on {instance.node}: {state}{f': {said}' if said else ''}"]


async def service(consul: Consul, name: str, found: Documents) -> Service:
    """Ask for one service; a name that cannot be asked for is its problem."""
    try:
        lookup(name)
    except ConfigError as error:
        return Service(name, problem=str(error))
    instances, checks = await asyncio.gather(consul.instances(name), consul.checks(name))
    return Service(name, instances.value, _obeys(checks.value), strict=found.plan(name).tls == "strict")


async def services(consul: Consul, names: Iterable[str], found: Documents) -> list[Service]:
    """Ask for several services, a few at a time, in the order of their names."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(name: str) -> Service:
        async with turns:
            return await service(consul, name, found)

    return await asyncio.gather(*(one(name) for name in sorted(names)))


def obeyed(name: str, everybody: Iterable[Service]) -> list[str]:
    """Which versions of a document callers say they obey, with how many of them do.

    A process names the plan of each service it calls: the service's own document, `+` the mesh's.
    """
    found = Counter(
        version
        for each in everybody
        for versions in each.obeys.values()
        for version in versions
        if name in {label.rpartition("@")[0] for label in version.split("+")}
    )
    return [f"{version} by {count}" for version, count in sorted(found.items())]


def _obeys(checks: Iterable[Check]) -> dict[tuple[str, str], tuple[str, ...]]:
    return {
        (check.node, check.service_id): tuple(check.output.removeprefix(SAYS).split(", "))
        for check in checks
        if check.output.startswith(SAYS)
    }

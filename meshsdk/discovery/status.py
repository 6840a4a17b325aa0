"""What `services`, `check`, the demo and the gauges are told of each service in use."""

from __future__ import annotations

from dataclasses import dataclass

from meshsdk.core.model import Endpoint

__all__ = ["ServiceStatus"]


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service at one moment.

    Attributes:
        source: where the endpoints are from: `consul`, `disk`, or empty while nothing is known.
        connected: Consul answers the watch of this service.
        watched: False once nobody called it for long; the next call takes the watch up again.
        age: seconds since Consul was last known to agree with the endpoints; 0 while connected, `inf` if it never was.
        error: why Consul could not be asked last time; empty while connected.
        policy: version of the plan in force, such as `payments@41` or `defaults`.
        policy_problem: what is wrong with documents that would apply and are therefore not in force; else empty.
        endpoints: what calls may go to, those in limbo included.
        limbo: how many of them Consul no longer lists.
        refusals: instances that cannot be called, one line each with the reason.
    """

    service: str
    source: str
    connected: bool
    watched: bool
    age: float
    error: str
    policy: str
    policy_problem: str
    endpoints: tuple[Endpoint, ...]
    limbo: int
    refusals: tuple[str, ...]

"""The effective policy of one destination, as the core reads it: plain numbers, no defaults.

Defaults, units in text form and validation belong to `meshsdk.policy`; every duration here is in seconds and
0 means "no limit" for the timeouts, as in Envoy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from meshsdk.core.access import Access
from meshsdk.core.egress import Egress
from meshsdk.core.tokens import Jwt
from meshsdk.core.value import Value

__all__ = ["Balancing", "Breaker", "Limits", "Outlier", "Plan", "Retries", "Timeouts"]


@dataclass(frozen=True, slots=True)
class Timeouts(Value):
    """How long things may take, in seconds; 0 is no limit.

    Attributes:
        request: the whole call: every try, every pause, the last body byte.
        attempt: one try, from its start to the reply's head.
        connect: opening a connection.
        idle: silence between two pieces of a body.
    """

    request: float
    attempt: float
    connect: float
    idle: float


@dataclass(frozen=True, slots=True)
class Retries(Value):
    """What is tried again.

    Attributes:
        attempts: tries in all; 1 turns retries off.
        connect_failure: again when the request was never written (safe for every method).
        reset: again when the connection broke or an attempt timed out (idempotent requests only, once written).
        statuses: answers that are tried again (idempotent requests only).
        any_method: True lifts the rule that a written request must be idempotent.
        backoff_base, backoff_max: full jitter in [0, min(max, base * 2**(n-1))], seconds.
        budget_ratio: retries allowed per request within the window, such as 0.2.
        budget_min_per_second: retries always allowed per second.
        budget_window: seconds a request counts for the budget.
    """

    attempts: int
    connect_failure: bool
    reset: bool
    statuses: frozenset[int]
    any_method: bool
    backoff_base: float
    backoff_max: float
    budget_ratio: float
    budget_min_per_second: float
    budget_window: float


@dataclass(frozen=True, slots=True)
class Breaker(Value):
    """When calls to the whole service stop: after `consecutive_failures`, for `open_for` s, then `probes` at a time.

    `consecutive_failures` 0 turns the breaker off.
    """

    consecutive_failures: int
    open_for: float
    probes: int


@dataclass(frozen=True, slots=True)
class Limits(Value):
    """Bounds of this process towards one destination (0 is no limit)."""

    max_requests: int
    max_pending: int
    max_connections_per_endpoint: int


@dataclass(frozen=True, slots=True)
class Outlier(Value):
    """When one endpoint is set aside.

    Attributes:
        consecutive_failures: failures in a row that eject; 0 turns this rule off.
        success_rate: least share of good answers per interval, 0 to 1; 0 turns this rule off.
        min_requests: answers per interval below which the rate says nothing.
        interval: seconds over which the rate is counted.
        base_ejection, max_ejection: seconds; the n-th ejection in a row lasts min(max, n * base).
        max_ejected_percent: share of endpoints that may be away at once; never all, at least one of two or more.
    """

    consecutive_failures: int
    success_rate: float
    min_requests: int
    interval: float
    base_ejection: float
    max_ejection: float
    max_ejected_percent: float


@dataclass(frozen=True, slots=True)
class Balancing(Value):
    """Which endpoint is taken.

    Attributes:
        algorithm: `peak-ewma`, `least-request`, `round-robin` or `random`.
        panic_threshold: percent of usable endpoints below which health is ignored; 0 turns panic mode off.
    """

    algorithm: str
    panic_threshold: float


@dataclass(frozen=True, slots=True)
class Plan(Value):
    """Everything the core needs to know of the policy for one destination, swapped whole.

    Attributes:
        version: what error messages and heartbeats say, such as `payments@41`, `_mesh@7` or `defaults`.
        access_log: `off`, `errors` or `all`.
        access: who may do what at the destination; for the destination itself.
        tls: `strict`, `permissive` or `off`.
        jwt: whose tokens the destination takes; for the destination itself. None where they are not looked at.
        egress: which hosts outside the mesh the caller may call, whatever the destination.
    """

    version: str
    timeouts: Timeouts
    retries: Retries
    breaker: Breaker
    limits: Limits
    outlier: Outlier
    balancing: Balancing
    access_log: str
    access: Access = field(default_factory=Access)
    tls: str = "permissive"
    jwt: Jwt | None = None
    egress: Egress = field(default_factory=Egress)

"""Which endpoint is taken: the `Balancer` protocol and the table of names.

Every balancer picks from a non-empty sequence of candidates that `meshsdk.core.rotation` has sifted, is told how
each try ended, and is called under the cluster's lock only. A tuple of candidates is recognised by identity, so
that what depends on weights is worked out once per set of endpoints and not once per call.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from meshsdk.core.balance.least_request import LeastRequest
from meshsdk.core.balance.peak_ewma import PeakEwma
from meshsdk.core.balance.random_choice import RandomChoice
from meshsdk.core.balance.round_robin import RoundRobin
from meshsdk.core.plan import Balancing
from meshsdk.core.state import EndpointState
from meshsdk.errors import ConfigError

__all__ = ["ALGORITHMS", "Balancer", "LeastRequest", "PeakEwma", "RandomChoice", "RoundRobin", "balancer"]


class Balancer(Protocol):
    """Takes one of several endpoints."""

    def pick(self, states: Sequence[EndpointState], now: float, rng: random.Random) -> EndpointState:
        """Take one of `states`, which is not empty and does not change; `now` in seconds."""
        ...

    def observe(self, state: EndpointState, seconds: float, ok: bool, now: float) -> None:
        """Hear that a try at `state` took `seconds`; `ok` is False for a failure or a refusal (5xx, 429)."""
        ...


ALGORITHMS: dict[str, Callable[[], Balancer]] = {
    "peak-ewma": PeakEwma,
    "least-request": LeastRequest,
    "round-robin": RoundRobin,
    "random": RandomChoice,
}


def balancer(plan: Balancing) -> Balancer:
    """Make the balancer that `plan.algorithm` names; raises ConfigError for a name that is not in `ALGORITHMS`."""
    try:
        return ALGORITHMS[plan.algorithm]()
    except KeyError:
        known = ", ".join(ALGORITHMS)
        raise ConfigError(f"load_balancing.algorithm {plan.algorithm!r} is not known; write one of {known}") from None

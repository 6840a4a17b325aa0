"""Least request: of two endpoints, the one with fewer requests under way for its weight."""

from __future__ import annotations

from meshsdk.core.balance.p2c import PowerOfTwoChoices
from meshsdk.core.state import EndpointState

__all__ = ["LeastRequest"]


class LeastRequest(PowerOfTwoChoices):
    """Power of two choices over requests in flight, as Envoy's LEAST_REQUEST with two choices.

    The cost is inflight / weight and not (inflight + 1) / weight: idle endpoints then tie, whatever they weigh, and the
    tie goes to the first draw, which is in proportion to weight. With the +1 the heaviest would take all light traffic.
    """

    __slots__ = ()

    def cost(self, state: EndpointState, now: float) -> float:  # noqa: ARG002 - the present has no part in it
        """Requests in flight per unit of weight."""
        return state.inflight / state.endpoint.weight

    def observe(self, state: EndpointState, seconds: float, ok: bool, now: float) -> None:
        """Latency has no part in this algorithm."""

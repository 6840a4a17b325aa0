"""Random: each endpoint in proportion to its weight, whatever its load."""

from __future__ import annotations

import random
from collections.abc import Sequence

from meshsdk.core.balance.weights import Weights
from meshsdk.core.state import EndpointState

__all__ = ["RandomChoice"]


class RandomChoice:
    """One draw by weight."""

    __slots__ = ("_weights",)

    def __init__(self) -> None:
        self._weights = Weights()

    def pick(self, states: Sequence[EndpointState], now: float, rng: random.Random) -> EndpointState:  # noqa: ARG002
        """Draw one of `states`."""
        if self._weights.of is not states:
            self._weights = Weights(states)
        return self._weights.draw(rng)

    def observe(self, state: EndpointState, seconds: float, ok: bool, now: float) -> None:
        """Nothing is learned."""

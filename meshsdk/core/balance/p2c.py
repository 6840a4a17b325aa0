"""Power of two choices: draw two endpoints, take the cheaper one.

Two draws are enough to keep the longest queue at O(log log n) (Mitzenmacher 1996), cost the same for 3 endpoints as
for 3,000, and keep many callers from running to the same cheapest endpoint at once: none gets more than 2/n of the
traffic while the others can be drawn.

With equal weights the two are distinct and every pair is equally likely. With weights each draw is in proportion to
weight and independent of the other, so that one endpoint may come twice: that is what makes a weight hold even
where the comparison always prefers the other endpoint.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence

from meshsdk.core.balance.weights import Weights
from meshsdk.core.state import EndpointState

__all__ = ["PowerOfTwoChoices"]


class PowerOfTwoChoices(ABC):
    """A balancer that compares two random endpoints by `cost`."""

    __slots__ = ("_weights",)

    def __init__(self) -> None:
        self._weights = Weights()

    @abstractmethod
    def cost(self, state: EndpointState, now: float) -> float:
        """What one more request to this endpoint costs; only the order of costs matters."""

    def pick(self, states: Sequence[EndpointState], now: float, rng: random.Random) -> EndpointState:
        """Take the cheaper of two; on a tie the one drawn first, which favours nobody."""
        count = len(states)
        if count == 1:
            return states[0]
        if self._weights.of is not states:
            self._weights = Weights(states)
        if self._weights.equal:
            # one draw for both: each of count x (count - 1) ordered pairs is equally likely
            pair = int(rng.random() * count * (count - 1))
            first, second = pair // (count - 1), pair % (count - 1)
            one, other = states[first], states[second + (second >= first)]
        else:
            one, other = self._weights.draw(rng), self._weights.draw(rng)
        return one if self.cost(one, now) <= self.cost(other, now) else other

"""Weighted chance: draw an endpoint in proportion to its weight, in O(1) where all weights are equal."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate

from meshsdk.core.state import EndpointState

__all__ = ["Weights"]


class Weights:
    """The weights of one set of candidates.

    Attributes:
        of: the sequence they were taken from; a balancer compares it by identity to know whether they still hold.
        equal: all weights are the same.
    """

    __slots__ = ("_steps", "equal", "of")

    def __init__(self, states: Sequence[EndpointState] = ()) -> None:
        weights = [state.endpoint.weight for state in states]
        self.of = states
        self.equal = not weights or min(weights) == max(weights)
        self._steps = [] if self.equal else list(accumulate(weights))

    def draw(self, rng: random.Random) -> EndpointState:
        """Draw one endpoint; O(1) with equal weights, else O(log n)."""
        if self.equal:
            return self.of[int(rng.random() * len(self.of))]
        steps = self._steps
        # the product can round up to the last step itself, which would point one behind the end
        return self.of[min(bisect(steps, rng.random() * steps[-1]), len(steps) - 1)]

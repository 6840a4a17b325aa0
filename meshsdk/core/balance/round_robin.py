"""Weighted round robin: endpoints take turns, a heavier one more often, evenly spread over the cycle.

Each endpoint has a due time on a virtual clock; the one due first is taken and is due again 1/weight later (earliest
deadline first, as Envoy schedules). That is O(log n), smooth (weights 3 and 1 give a a b a, not a a a b), and with
equal weights the plain cycle. An endpoint that joins starts at a random point of its first turn, so that many
processes started together do not all begin with the same endpoint.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from heapq import heapify, heapreplace

from meshsdk.core.state import EndpointState

__all__ = ["RoundRobin"]


class RoundRobin:
    """Turns by due time; who stays keeps the turn when others come or go."""

    __slots__ = ("_of", "_queue")

    def __init__(self) -> None:
        self._of: Sequence[EndpointState] = ()
        self._queue: list[tuple[float, int, EndpointState]] = []

    def pick(self, states: Sequence[EndpointState], now: float, rng: random.Random) -> EndpointState:  # noqa: ARG002
        """Take the endpoint whose turn it is."""
        if states is not self._of:
            self._enrol(states, rng)
        due, place, state = self._queue[0]
        heapreplace(self._queue, (due + 1.0 / state.endpoint.weight, place, state))
        return state

    def observe(self, state: EndpointState, seconds: float, ok: bool, now: float) -> None:
        """Nothing is learned."""

    def _enrol(self, states: Sequence[EndpointState], rng: random.Random) -> None:
        start = self._queue[0][0] if self._queue else 0.0
        due = {state: when for when, _, state in self._queue}
        queue = [
            (due[state] if state in due else start + rng.random() / state.endpoint.weight, place, state)
            for place, state in enumerate(states)
        ]
        heapify(queue)
        self._queue, self._of = queue, states

"""One service as this process knows it: endpoints, policy and everything its calls share. Lives as long as the process.

What changes is swapped: `adopt` takes a new policy, `update` new endpoints. Neither disturbs calls under way, and both
keep what was learned: an endpoint's latency and ejection, the breaker's state, the budget if its numbers are the same.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import replace

from meshsdk.core.balance import balancer
from meshsdk.core.events import Sink
from meshsdk.core.exchange import Exchange
from meshsdk.core.model import Call, Endpoint, Snapshot
from meshsdk.core.plan import Plan, Retries
from meshsdk.core.state import EndpointState
from meshsdk.core.strategy import Stop, Strategy, Wait
from meshsdk.core.upstream import Upstream, budget

__all__ = ["Cluster"]


class Cluster(Upstream):
    """The owner's side of a service.

    Args:
        service: its name.
        plan: the policy to begin with.
        clock: seconds, monotonic.
        rng: chance, for picks and pauses.
        sink: told every event; must not raise.
        wait, stop: tenacity objects of the user's, asked after a failure in place of the plan's backoff.
    """

    __slots__ = ("_departed",)

    def __init__(
        self,
        service: str,
        plan: Plan,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        sink: Sink,
        wait: Wait | None = None,
        stop: Stop | None = None,
    ) -> None:
        strategy = Strategy(wait, stop) if wait is not None or stop is not None else None
        super().__init__(service, plan, clock=clock, rng=rng, sink=sink, strategy=strategy)
        self._departed: list[EndpointState] = []  # no longer in the snapshot, attempts still open

    @property
    def in_flight(self) -> int:
        """Attempts under way, bodies included."""
        return self._bulkhead.in_flight

    @property
    def pending(self) -> int:
        """The part of them that waits for a connection."""
        return self._bulkhead.pending

    @property
    def breaker_state(self) -> str:
        """`closed`, `open` or `half-open`."""
        return self.breaker.state

    @property
    def budget_balance(self) -> float:
        """Retries that could be made now."""
        with self._lock:
            return self._budget.balance(self.clock())

    def states(self) -> tuple[EndpointState, ...]:
        """The live counters of the endpoints in the snapshot; to be read only."""
        return self._rotation.states

    def exchange(self, call: Call) -> Exchange:
        """Begin a call under the policy in force now."""
        return Exchange(self, call)

    def adopt(self, plan: Plan) -> None:
        """Follow another policy from the next call on."""
        with self._lock:
            old, self.plan = self.plan, plan
            if _earning(plan.retries) != _earning(old.retries):
                self._budget = budget(plan.retries, self.clock())
            self._bulkhead.adopt(plan.limits, (*self._rotation.states, *self._departed))
            if plan.balancing.algorithm != old.balancing.algorithm:
                self._balancer = balancer(plan.balancing)
            if (plan.outlier, plan.balancing) != (old.outlier, old.balancing):
                self._rotation.adopt(plan.outlier, plan.balancing.panic_threshold, self.clock())
        if plan.breaker != old.breaker:
            self.breaker.adopt(plan.breaker)
            self._tell_moves()

    def update(self, snapshot: Snapshot) -> None:
        """Follow other endpoints from the next attempt on; raises ValueError if two of them have the same key."""
        _check_keys(snapshot)
        now = self.clock()
        with self._lock:
            known = {state.endpoint.key: state for state in (*self._departed, *self._rotation.states)}
            self._rotation.update(self._follow(known.pop(e.key, None), e, now) for e in snapshot.endpoints)
            self._departed = [state for state in known.values() if state.inflight]
            self.snapshot = snapshot

    def forget_in_flight(self) -> None:
        """In a forked child: no call of the parent is ours. What was learned of endpoints stays; the breaker is new."""
        self._lock = threading.Lock()  # another thread of the parent may have held it
        self._era += 1
        self._rotation.update(replace(state, inflight=0, probing=False) for state in self._rotation.states)
        self._departed = []
        self._bulkhead = self._bulkhead.emptied()
        self.breaker = self.breaker.renewed()

    def _follow(self, state: EndpointState | None, endpoint: Endpoint, now: float) -> EndpointState:
        if state is None:
            return EndpointState(endpoint, window_start=now)
        recovered = endpoint.healthy and not state.endpoint.healthy
        state.endpoint = endpoint
        if recovered and state.ejected_until:
            self._rotation.revived(state, now)
        return state


def _earning(retries: Retries) -> tuple[float, float, float]:
    return retries.budget_ratio, retries.budget_min_per_second, retries.budget_window


def _check_keys(snapshot: Snapshot) -> None:
    seen: dict[str, Endpoint] = {}
    for endpoint in snapshot.endpoints:
        other = seen.setdefault(endpoint.key, endpoint)
        if other is not endpoint:
            raise ValueError(
                f"{snapshot.service}: {other} and {endpoint} have the same key {endpoint.key!r}; give each its own"
            )

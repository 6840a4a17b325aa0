"""What the calls to one service share: admission, the slots they hold, what their outcomes teach.

Rule 1: one lock, held for a few statements, never across the sink, a breaker's listener or a call.
Rule 2: the order of admission is fixed: breaker, requests under way, a usable endpoint, a connection to it. What an
earlier gate gave is returned when a later one refuses.
Rule 3: `release` is the only way out. It gives back what `admit` took, once, however the attempt ended.
Rule 4: a forked child owes nothing for attempts its parent began: they are of another era.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meshsdk.core.attempt import Attempt
from meshsdk.core.balance import balancer
from meshsdk.core.breaker import Breaker
from meshsdk.core.budget import RetryBudget
from meshsdk.core.bulkhead import Bulkhead
from meshsdk.core.events import BreakerMoved, Ejected, Returned, Sink
from meshsdk.core.model import Endpoint, Snapshot
from meshsdk.core.outlier import Ejection, Reinstatement
from meshsdk.core.plan import Plan, Retries
from meshsdk.core.rotation import Rotation
from meshsdk.core.state import EndpointState
from meshsdk.core.strategy import Strategy
from meshsdk.errors import BreakerOpen, CallError, NoEndpoint, Overloaded

__all__ = ["Refusal", "Slot", "Upstream", "budget"]


@dataclass(slots=True)
class Refusal:
    """Why an attempt was not let in: the error to raise, its reason, and a line for a person."""

    error: type[CallError]
    reason: str
    problem: str


# What an admitted attempt holds until its end: the endpoint, the breaker's permit, whether it is the endpoint's probe,
# the era. A tuple, because a record would cost every call a quarter of a microsecond.
Slot = tuple[EndpointState, int, bool, int]


class Upstream:
    """The shared side of one service, as its exchanges see it; `Cluster` is the same as its owner sees it.

    Args:
        service: its name.
        plan: the policy to begin with.
        clock: seconds, monotonic.
        rng: chance, for picks and pauses.
        sink: told every event; must not raise.
        strategy: a user's own tenacity wait and stop objects; None leaves the pauses to the plan.
    """

    __slots__ = (
        "_balancer",
        "_budget",
        "_bulkhead",
        "_era",
        "_lock",
        "_rotation",
        "breaker",
        "clock",
        "plan",
        "rng",
        "service",
        "sink",
        "snapshot",
        "strategy",
    )

    def __init__(
        self,
        service: str,
        plan: Plan,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        sink: Sink,
        strategy: Strategy | None = None,
    ) -> None:
        self.service = service
        self.plan = plan
        self.snapshot = Snapshot(service, ())
        self.clock = clock
        self.rng = rng
        self.sink = sink
        self.strategy = strategy
        self.breaker = Breaker(plan.breaker, service)
        self._budget = budget(plan.retries, clock())
        self._bulkhead = Bulkhead(plan.limits)
        self._balancer = balancer(plan.balancing)
        self._rotation = Rotation(plan.outlier, plan.balancing.panic_threshold)
        self._lock = threading.Lock()
        self._era = 0

    def admit(self, tried: Sequence[EndpointState], now: float) -> Slot | Refusal:
        """Let one attempt in, to an endpoint that is not in `tried` while others are left (rule 4 of rotation.py); a
        first try is counted for the retry budget.
        """
        breaker = self.breaker
        permit: int | None = breaker.epoch
        if not breaker.closed:
            permit = breaker.admit(now)
        if permit is None:
            return Refusal(BreakerOpen, "breaker-open", breaker.why(now))
        with self._lock:
            if tried:
                usable = self._rotation.again(tried, now)
            else:
                usable = self._rotation.candidates(now)
                self._budget.deposit(now)
            state = self._balancer.pick(usable, now, self.rng) if usable else None
            limit = "no-endpoint" if state is None else self._bulkhead.take(state)
            if state is not None and not limit:
                probe = state.ejected_until > 0 and self._rotation.began(state, now)
                slot: Slot | Refusal = (state, permit, probe, self._era)
            else:
                slot = self._refusal(limit, state)
        if limit:  # outside of our lock: a listener, under the breaker's, may be asking us something
            breaker.release(permit)
        if breaker.moves:
            self._tell_moves()
        return slot

    def observe(self, attempt: Attempt, seconds: float, good: bool, now: float) -> None:
        """Teach the balancer how long an attempt took, and whether that was for a good answer."""
        with self._lock:
            self._balancer.observe(attempt.state, seconds, good, now)

    def record(self, attempt: Attempt, ok: bool, now: float, what: str = "") -> None:
        """Teach outlier detection and the breaker the outcome of an attempt that goes on; `what` names a failure."""
        if attempt.era != self._era:
            return
        with self._lock:
            permit, attempt.permit = attempt.permit, None
            verdict = None if permit is None else self._rotation.record(attempt.state, ok, now, attempt.probe)
            attempt.probe = False
        if permit is not None:
            self.breaker.record(permit, ok, now, what)
        if verdict is not None or self.breaker.moves:
            self._tell(attempt.endpoint, verdict)

    def conclude(self, attempt: Attempt, ok: bool, now: float, what: str = "") -> None:
        """End an attempt: give back what it holds, and teach its outcome if that is not known yet."""
        breaker, state, verdict = self.breaker, attempt.state, None
        with self._lock:
            if self._closed(attempt):
                return
            permit, attempt.permit = attempt.permit, None
            if permit is not None and not (ok and self._rotation.credited(state, now)):
                verdict = self._rotation.record(state, ok, now, attempt.probe)
        if permit is not None and not (ok and breaker.calm):
            breaker.record(permit, ok, now, what)
        if verdict is not None or breaker.moves:
            self._tell(attempt.endpoint, verdict)

    def release(self, attempt: Attempt) -> None:
        """End an attempt without an outcome: nobody is blamed, nobody is credited."""
        with self._lock:
            if self._closed(attempt):
                return
            if attempt.probe:
                self._rotation.released(attempt.state)
        if attempt.permit is not None:
            self.breaker.release(attempt.permit)

    def withdraw(self, now: float) -> bool:
        """Take one retry from the budget."""
        with self._lock:
            return self._budget.withdraw(now)

    def _refusal(self, reason: str, state: EndpointState | None) -> Refusal:
        if state is None:
            return Refusal(NoEndpoint, reason, self._why_none())
        return Refusal(Overloaded, reason, self._bulkhead.why(reason, state))

    def _why_none(self) -> str:
        """Say whether the registry knows no instance, or knows some and none may be used."""
        if self.snapshot.problem:
            return self.snapshot.problem
        states = self._rotation.states
        if not states:
            return f"no instance is registered (known from: {self.snapshot.source})"
        unhealthy = sum(not state.endpoint.healthy for state in states)
        gone = sum(state.endpoint.limbo for state in states)
        ejected = sum(state.ejected_until > 0 for state in states)
        count = f"{len(states)} instance{'s' if len(states) != 1 else ''}"
        return f"none of {count} can be used: {unhealthy} unhealthy, {gone} no longer listed, {ejected} ejected"

    def _closed(self, attempt: Attempt) -> bool:
        """Give the slot back; True where it is not ours, in a forked child."""
        if not attempt.open:
            raise RuntimeError(f"try {attempt.number} to {attempt.endpoint} was given back before")
        attempt.open = False
        if attempt.era != self._era:
            return True
        self._bulkhead.give_back(attempt.state)
        return False

    def _tell(self, endpoint: Endpoint, verdict: Ejection | Reinstatement | None) -> None:
        if isinstance(verdict, Ejection):
            self.sink(Ejected(self.service, endpoint, verdict.reason, verdict.seconds))
        elif verdict is not None:
            self.sink(Returned(self.service, endpoint))
        self._tell_moves()

    def _tell_moves(self) -> None:
        for before, after in self.breaker.take_moves():
            self.sink(BreakerMoved(self.service, before, after))


def budget(retries: Retries, now: float) -> RetryBudget:
    """Make the retry budget that a policy asks for."""
    return RetryBudget(retries.budget_ratio, retries.budget_min_per_second, retries.budget_window, now)

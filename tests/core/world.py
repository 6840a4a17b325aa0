"""A cluster whose clock stands still and whose events are kept, for the core's tests."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from meshsdk.core.attempt import Attempt, Verdict
from meshsdk.core.cluster import Cluster
from meshsdk.core.events import AttemptEnded, CallEnded, Event
from meshsdk.core.exchange import Exchange
from meshsdk.core.model import Call, Endpoint, Failure, Phase, Snapshot
from meshsdk.core.plan import Balancing, Breaker, Limits, Outlier, Plan, Retries, Timeouts

PLAN = Plan(
    version="payments@7",
    timeouts=Timeouts(request=15.0, attempt=5.0, connect=1.0, idle=300.0),
    retries=Retries(3, True, True, frozenset({502, 503, 504}), False, 0.025, 0.25, 0.2, 10.0, 10.0),
    breaker=Breaker(20, 5.0, 3),
    limits=Limits(1024, 1024, 256),
    outlier=Outlier(5, 0.8, 20, 10.0, 30.0, 300.0, 50.0),
    balancing=Balancing("round-robin", 50.0),
    access_log="errors",
)

REFUSED = Failure(Phase.NOT_CONNECTED, "connect-failure", "connection refused", ConnectionRefusedError(111))
RESET = Failure(Phase.WRITTEN, "reset", "closed the connection before any reply", ConnectionResetError(104))
UNTRUSTED = Failure(Phase.NOT_WRITTEN, "tls", "the peer refused our certificate: alert unknown ca")
SLOW = Failure(Phase.WRITTEN, "timeout", "no reply in time")
CLOSED = Failure(Phase.WRITTEN, "closed", "the engine was closed")
GARBLED = Failure(Phase.REPLY_STARTED, "protocol", "not HTTP")


def plan(**sections: dict[str, Any]) -> Plan:
    """PLAN with some fields of some sections replaced: `plan(retries={"attempts": 1})`."""
    return replace(PLAN, **{name: replace(getattr(PLAN, name), **fields) for name, fields in sections.items()})


def endpoints(count: int, **fields: Any) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(f"e{i}", f"10.0.0.{i}", 80, **fields) for i in range(count))


class World:
    """One service, a clock, chance and ears."""

    def __init__(self, plan: Plan = PLAN, count: int = 3, seed: int = 1, **options: Any) -> None:
        self.now = 100.0
        self.events: list[Event] = []
        self.pauses: list[float] = []
        self.cluster = Cluster(
            "payments", plan, clock=lambda: self.now, rng=random.Random(seed), sink=self.events.append, **options
        )
        self.cluster.update(Snapshot("payments", endpoints(count)))

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)

    def call(self, method: str = "GET", **facts: Any) -> Exchange:
        return self.cluster.exchange(Call(method, **facts))

    def serve(self, status: int = 200, seconds: float = 0.01) -> Verdict:
        """One call whose first try is answered, body and all."""
        exchange = self.call()
        attempt = exchange.begin()
        self.now += seconds
        verdict = exchange.answered(attempt, status)
        if attempt.open:
            exchange.finished(attempt)
        else:
            exchange.give_up()
        return verdict

    def fail(self, failure: Failure = RESET) -> Verdict:
        """One call whose first try fails; it is not tried again."""
        exchange = self.call()
        attempt = exchange.begin()
        verdict = exchange.failed(attempt, failure)
        if not self.ended():
            exchange.give_up()
        return verdict

    def ended(self) -> list[CallEnded]:
        return [event for event in self.events if isinstance(event, CallEnded)]

    def tried(self) -> list[AttemptEnded]:
        return [event for event in self.events if isinstance(event, AttemptEnded)]

    def state(self, attempt: Attempt) -> Any:
        return next(s for s in self.cluster.states() if s.endpoint.key == attempt.endpoint.key)

"""A service in virtual time: servers, callers and a clock that jumps; the cluster and its exchanges are the real ones.

A run is a heap of events and nothing else: no threads, no event loop, no sleeping. 60 s at 1,000 requests/s take about
2 s. The same seed gives the same run.

    servers = [Server(f"s{i}", latency=lognormal(0.02)) for i in range(11)]
    servers[0].between(10, 40, latency=constant(2.0))
    report = Simulation(plan(algorithm="peak-ewma"), servers, seed=1).run(rate=1000, seconds=60)
    print(report)
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from meshsdk.core.attempt import Attempt, Retry, Verdict
from meshsdk.core.cluster import Cluster
from meshsdk.core.events import Ejected, Event, Returned
from meshsdk.core.exchange import Exchange
from meshsdk.core.model import Call, Endpoint, Failure, Phase, Snapshot
from meshsdk.core.plan import Balancing, Breaker, Limits, Outlier, Plan, Retries, Timeouts
from meshsdk.errors import CallError

__all__ = ["Clock", "Outcome", "Report", "Server", "Simulation", "constant", "lognormal", "plan", "uniform"]

Latency = Callable[[random.Random], float]


def constant(seconds: float) -> Latency:
    """Always as long."""
    return lambda _: seconds


def uniform(least: float, most: float) -> Latency:
    """Anything between two bounds, in seconds."""
    return lambda rng: rng.uniform(least, most)


def lognormal(median: float, sigma: float = 0.5) -> Latency:
    """The long-tailed shape of real services; sigma 0.5 puts the 99th percentile at 3.2 times the median."""
    return lambda rng: median * rng.lognormvariate(0.0, sigma)


def plan(
    algorithm: str = "peak-ewma",
    *,
    request: float = 0.0,
    attempt: float = 0.0,
    attempts: int = 1,
    ejecting: bool = False,
    max_ejected_percent: float = 50.0,
    panic_threshold: float = 50.0,
) -> Plan:
    """A policy with the documented numbers, and everything off that a run does not ask for."""
    return Plan(
        version="simulation",
        timeouts=Timeouts(request=request, attempt=attempt, connect=1.0, idle=0.0),
        retries=Retries(attempts, True, True, frozenset({502, 503, 504}), False, 0.025, 0.25, 0.2, 10.0, 10.0),
        breaker=Breaker(consecutive_failures=0, open_for=5.0, probes=3),
        limits=Limits(0, 0, 0),
        outlier=Outlier(5 if ejecting else 0, 0.8 if ejecting else 0.0, 20, 10.0, 30.0, 300.0, max_ejected_percent),
        balancing=Balancing(algorithm, panic_threshold),
        access_log="off",
    )


class Clock:
    """Virtual seconds and what is due."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._order), event))

    def run(self) -> None:
        """Let everything happen, until nothing is due."""
        while self._due:
            self.now, _, event = heapq.heappop(self._due)
            event()


@dataclass
class Server:
    """One instance: how long it takes and what it answers, which may change for a while.

    Attributes:
        status: of its answers; 0 refuses the connection after `latency`.
        errors: share of answers, 0 to 1, that are 500 whatever `status` says.
    """

    name: str
    latency: Latency = field(default_factory=lambda: lognormal(0.02))
    status: int = 200
    errors: float = 0.0
    weight: float = 1.0
    phases: list[tuple[float, float, Latency, int]] = field(default_factory=list)
    inflight: int = 0
    most_inflight: int = 0
    served: list[float] = field(default_factory=list)

    def between(self, start: float, end: float, *, latency: Latency | None = None, status: int | None = None) -> None:
        """Behave differently from `start` to `end` seconds."""
        phase = (start, end, latency or self.latency, self.status if status is None else status)
        self.phases.append(phase)

    def serve(self, now: float, rng: random.Random) -> tuple[float, int]:
        """Take a request; say in how many seconds it is answered, and with what."""
        self.served.append(now)
        self.inflight += 1
        self.most_inflight = max(self.most_inflight, self.inflight)
        latency, status = self.latency, self.status
        for start, end, other_latency, other_status in self.phases:
            if start <= now < end:
                latency, status = other_latency, other_status
        if self.errors and rng.random() < self.errors:
            status = 500
        return latency(rng), status

    def share(self, report: Report, start: float = 0.0, end: float = float("inf")) -> float:
        """Its part of all attempts begun from `start` to `end`."""
        within = sum(start <= at < end for at in self.served)
        return within / max(1, sum(start <= at < end for server in report.servers for at in server.served))

    def endpoint(self) -> Endpoint:
        return Endpoint(key=self.name, address="127.0.0.1", port=80, weight=self.weight)


@dataclass(slots=True)
class Outcome:
    """How one call ended; `status` is None where it got no reply."""

    started: float
    seconds: float
    status: int | None
    attempts: int
    reason: str

    def good(self, within: float) -> bool:
        return self.status is not None and self.status < 500 and self.seconds <= within


@dataclass
class Report:
    """What a run came to."""

    servers: Sequence[Server]
    outcomes: list[Outcome] = field(default_factory=list)
    events: list[tuple[float, Event]] = field(default_factory=list)
    fewest_in_rotation: int = 1_000_000

    def success(self, within: float = 1.0, start: float = 0.0, end: float = float("inf")) -> float:
        """Share of calls begun in that time which got a good answer within so many seconds."""
        chosen = [outcome for outcome in self.outcomes if start <= outcome.started < end]
        return sum(outcome.good(within) for outcome in chosen) / len(chosen)

    def quantile(self, share: float) -> float:
        seconds = sorted(outcome.seconds for outcome in self.outcomes)
        return seconds[min(int(share * len(seconds)), len(seconds) - 1)]

    @property
    def amplification(self) -> float:
        """Attempts per call."""
        return sum(outcome.attempts for outcome in self.outcomes) / len(self.outcomes)

    def __str__(self) -> str:
        reasons = Counter(outcome.reason for outcome in self.outcomes)
        moved = Counter(type(event).__name__ for _, event in self.events)
        lines = [
            f"{len(self.outcomes)} calls: {self.success():.3%} good within 1 s, {self.amplification:.3f} attempts each",
            f"p50 {self.quantile(0.5) * 1e3:.1f} ms, p99 {self.quantile(0.99) * 1e3:.1f} ms",
            f"ended: {dict(reasons)}, moved: {dict(moved)}",
            *(f"  {s.name}: {s.share(self):6.2%} of attempts, at most {s.most_inflight} at once" for s in self.servers),
        ]
        return "\n".join(lines)


class Simulation:
    """Callers in one process, talking to `servers` through one cluster."""

    def __init__(self, policy: Plan, servers: Sequence[Server], seed: int) -> None:
        self.clock = Clock()
        self.rng = random.Random(seed)
        self.servers = {server.name: server for server in servers}
        self.report = Report(list(servers))
        self.cluster = Cluster("simulated", policy, clock=self.clock, rng=random.Random(seed + 1), sink=self._note)
        self._list(servers)

    def at(self, seconds: float, event: Callable[[], None]) -> None:
        """Let something else happen at that time."""
        self.clock.after(seconds - self.clock.now, event)

    def join(self, server: Server) -> None:
        """Have the registry list one more server."""
        self.servers[server.name] = server
        self.report.servers = list(self.servers.values())
        self._list(self.report.servers)

    def mark(self, name: str, *, healthy: bool = True, limbo: bool = False) -> None:
        """Have the registry change its mind about a server."""
        endpoints = self.cluster.snapshot.endpoints
        changed = (replace(e, healthy=healthy, limbo=limbo) if e.key == name else e for e in endpoints)
        self.cluster.update(Snapshot("simulated", tuple(changed)))

    def run(self, rate: float, seconds: float, *, poisson: bool = True) -> Report:
        """Begin calls at `rate` per second for so long, and let all of them end."""

        def arrive() -> None:
            gap = self.rng.expovariate(rate) if poisson else 1.0 / rate
            if self.clock.now + gap < seconds:
                self.clock.after(gap, arrive)
            self.call()

        self.clock.after(0.0, arrive)
        self.clock.run()
        return self.report

    def burst(self, calls: int) -> Report:
        """Begin so many calls at once, and let all of them end."""
        for _ in range(calls):
            self.call()
        self.clock.run()
        return self.report

    def call(self) -> None:
        """Begin one call now."""
        self._attempt(self.cluster.exchange(Call("GET")), self.clock.now)

    def _attempt(self, exchange: Exchange, started: float) -> None:
        try:
            attempt = exchange.begin()
        except CallError:
            self._end(exchange, started, None)
            return
        server = self.servers[attempt.endpoint.key]
        latency, status = server.serve(self.clock.now, self.rng)
        self.clock.after(latency, lambda: self._served(server))
        left = attempt.deadline - self.clock.now
        if latency > left:
            late = Failure(Phase.WRITTEN, "timeout")
            self.clock.after(left, lambda: self._failed(exchange, attempt, late, started))
        elif status == 0:
            refused = Failure(Phase.NOT_CONNECTED, "connect-failure")
            self.clock.after(latency, lambda: self._failed(exchange, attempt, refused, started))
        else:
            self.clock.after(latency, lambda: self._answered(exchange, attempt, status, started))

    def _served(self, server: Server) -> None:
        server.inflight -= 1

    def _answered(self, exchange: Exchange, attempt: Attempt, status: int, started: float) -> None:
        verdict = exchange.answered(attempt, status)
        if not isinstance(verdict, Retry):
            exchange.finished(attempt)
        self._go_on(exchange, verdict, started, status)

    def _failed(self, exchange: Exchange, attempt: Attempt, failure: Failure, started: float) -> None:
        self._go_on(exchange, exchange.failed(attempt, failure), started, None)

    def _go_on(self, exchange: Exchange, verdict: Verdict, started: float, status: int | None) -> None:
        if isinstance(verdict, Retry):
            self.clock.after(verdict.after, lambda: self._attempt(exchange, started))
        else:
            self._end(exchange, started, status)

    def _end(self, exchange: Exchange, started: float, status: int | None) -> None:
        outcome = Outcome(started, self.clock.now - started, status, exchange.attempts, exchange.reason)
        self.report.outcomes.append(outcome)

    def _list(self, servers: Iterable[Server]) -> None:
        self.cluster.update(Snapshot("simulated", tuple(server.endpoint() for server in servers)))

    def _note(self, event: Event) -> None:
        if isinstance(event, Ejected | Returned):
            self.report.events.append((self.clock.now, event))
            inside = sum(not state.ejected_until for state in self.cluster.states())
            self.report.fewest_in_rotation = min(self.report.fewest_in_rotation, inside)

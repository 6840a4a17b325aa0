"""What calls share: live updates, ejection and its probe, forks, threads, and what an observer can read."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshsdk.core.attempt import Attempt, Final, Retry
from meshsdk.core.cluster import Cluster
from meshsdk.core.events import BreakerMoved, Ejected, Event, Returned
from meshsdk.core.exchange import Exchange
from meshsdk.core.model import Call, Endpoint, Snapshot
from meshsdk.errors import CallError
from tests.core.world import REFUSED, RESET, SLOW, World, endpoints, plan


def heard(world: World, *kinds: type[Event]) -> list[Event]:
    return [event for event in world.events if isinstance(event, kinds)]


# --- update ------------------------------------------------------------------------------------------


def test_what_is_known_of_an_endpoint_outlives_a_snapshot(world: World) -> None:
    state = world.cluster.states()[1]
    state.ewma = 0.5
    moved = replace(state.endpoint, weight=3.0)
    world.cluster.update(Snapshot("payments", (endpoints(5)[4], moved), "consul"))
    assert world.cluster.snapshot.source == "consul"
    assert [s.endpoint.key for s in world.cluster.states()] == ["e4", "e1"]
    assert world.cluster.states()[1] is state
    assert (state.endpoint.weight, state.ewma) == (3.0, 0.5)


def test_an_endpoint_that_leaves_under_a_call_is_found_again(world: World) -> None:
    exchange = world.call()
    attempt = exchange.begin()
    everyone = world.cluster.snapshot
    world.cluster.update(Snapshot("payments", ()))
    assert (world.cluster.in_flight, world.cluster.states()) == (1, ())
    world.cluster.update(everyone)
    assert world.state(attempt) is attempt.state
    assert world.state(attempt).inflight == 1
    exchange.answered(attempt, 200)
    exchange.finished(attempt)
    assert world.state(attempt).inflight == 0


def test_an_attempt_keeps_the_address_it_was_given(world: World) -> None:
    attempt = world.call().begin()
    before = attempt.endpoint
    world.cluster.update(Snapshot("payments", tuple(replace(e, port=81) for e in endpoints(3))))
    assert (attempt.endpoint, attempt.state.endpoint.port) == (before, 81)


def test_two_endpoints_with_one_key_are_refused_and_change_nothing(world: World) -> None:
    twins = (Endpoint("e1", "10.0.0.1", 80), Endpoint("e1", "10.0.0.9", 80))
    with pytest.raises(ValueError, match=r"10\.0\.0\.1:80 and 10\.0\.0\.9:80 have the same key 'e1'"):
        world.cluster.update(Snapshot("payments", twins))
    assert len(world.cluster.states()) == 3


# --- adopt -------------------------------------------------------------------------------------------


def test_the_budget_survives_other_changes_and_follows_its_own() -> None:
    world = World(plan(retries={"budget_min_per_second": 1.0}))
    world.fail()
    assert world.cluster.budget_balance == pytest.approx(9.2)
    world.cluster.adopt(plan(retries={"budget_min_per_second": 1.0, "attempts": 2}))
    assert world.cluster.budget_balance == pytest.approx(9.2)
    world.cluster.adopt(plan(retries={"budget_min_per_second": 2.0}))
    assert world.cluster.budget_balance == 20.0


def test_the_breaker_survives_a_new_policy() -> None:
    world = World(plan(breaker={"consecutive_failures": 2}))
    world.fail()
    world.cluster.adopt(plan(breaker={"consecutive_failures": 2}, limits={"max_requests": 5}))
    world.fail()
    assert world.cluster.breaker_state == "open"
    world.cluster.adopt(plan(breaker={"consecutive_failures": 0}))
    assert world.cluster.breaker_state == "closed"
    assert heard(world, BreakerMoved)[-1] == BreakerMoved("payments", "open", "closed")


def test_other_limits_count_who_waits_anew() -> None:
    world = World(plan(limits={"max_connections_per_endpoint": 0}), count=1)
    calls = [world.call() for _ in range(4)]
    attempts = [exchange.begin() for exchange in calls]
    assert world.cluster.pending == 0
    world.cluster.adopt(plan(limits={"max_connections_per_endpoint": 1}))
    assert world.cluster.pending == 3
    for exchange, attempt in zip(calls, attempts, strict=True):
        exchange.abandon(attempt)
    assert world.cluster.pending == 0


def test_another_algorithm_takes_over() -> None:
    world = World(plan(balancing={"algorithm": "round-robin"}))
    world.cluster.adopt(plan(balancing={"algorithm": "least-request"}))
    busy = [world.call().begin() for _ in range(9)]
    assert sorted(attempt.state.inflight for attempt in busy) == [3] * 9


# --- ejection and the breaker, told ------------------------------------------------------------------


def eject(world: World) -> Attempt:
    """Fail one endpoint of a world until it is ejected."""
    while True:
        exchange = world.call()
        attempt = exchange.begin()
        if attempt.endpoint.key == "e0":
            exchange.failed(attempt, RESET)
        else:
            exchange.answered(attempt, 200)
            exchange.finished(attempt)
        if attempt.state.ejected_until:
            return attempt


def test_an_ejected_endpoint_is_told_and_not_called(world: World) -> None:
    attempt = eject(world)
    assert heard(world, Ejected) == [Ejected("payments", attempt.endpoint, "consecutive-failures", 30.0)]
    assert {world.call().begin().endpoint.key for _ in range(20)} == {"e1", "e2"}


def probe(world: World) -> tuple[Exchange, Attempt]:
    for _ in range(20):
        exchange = world.call()
        attempt = exchange.begin()
        if attempt.probe:
            return exchange, attempt
    raise AssertionError("no probe was sent")


def test_a_returning_endpoint_gets_one_probe_and_is_told_back(world: World) -> None:
    state = eject(world).state
    world.now += 31.0
    exchange, attempt = probe(world)
    assert (attempt.state, state.probing) == (state, True)
    assert not any(world.call().begin().state is state for _ in range(20))
    exchange.answered(attempt, 200)
    exchange.finished(attempt)
    assert heard(world, Returned) == [Returned("payments", attempt.endpoint)]
    assert any(world.call().begin().state is state for _ in range(20))


def test_a_cancelled_probe_makes_room_for_another(world: World) -> None:
    state = eject(world).state
    world.now += 31.0
    exchange, attempt = probe(world)
    exchange.abandon(attempt)
    assert state.probing is False
    assert probe(world)[1].state is state
    assert heard(world, Returned) == []


@pytest.mark.parametrize("how", ["status", "failure"])
def test_a_failed_probe_ejects_for_longer(world: World, how: str) -> None:
    eject(world)
    world.now += 31.0
    exchange, attempt = probe(world)
    if how == "status":
        exchange.answered(attempt, 500)
        exchange.finished(attempt)
    else:
        exchange.failed(attempt, RESET)
    assert heard(world, Ejected)[-1] == Ejected("payments", attempt.endpoint, "probe-failed", 60.0)
    assert attempt.state.probing is False


def test_the_registry_seeing_it_recover_turns_ejection_into_probation(world: World) -> None:
    state = eject(world).state
    sick = tuple(replace(e, healthy=e.key != "e0") for e in endpoints(3))
    world.cluster.update(Snapshot("payments", sick))
    world.cluster.update(Snapshot("payments", endpoints(3)))
    assert probe(world)[1].state is state


def test_the_breakers_moves_are_told_through_to_closed() -> None:
    world = World(plan(breaker={"consecutive_failures": 2, "open_for": 5.0, "probes": 1}))
    world.fail()
    world.fail()
    world.now += 5.0
    world.serve()
    assert [(e.before, e.after) for e in heard(world, BreakerMoved) if isinstance(e, BreakerMoved)] == [
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
    ]
    assert world.cluster.breaker.permits == 0


def test_a_refusal_behind_the_breaker_gives_the_probe_back() -> None:
    world = World(plan(breaker={"consecutive_failures": 1, "open_for": 5.0, "probes": 1}))
    world.fail()
    world.now += 5.0
    world.cluster.update(Snapshot("payments", ()))
    with pytest.raises(CallError, match="no instance is registered"):
        world.call().begin()
    assert (world.cluster.breaker_state, world.cluster.breaker.permits) == ("half-open", 0)


def test_opening_the_circuit_by_hand_stops_calls_and_is_told(world: World) -> None:
    world.cluster.breaker.circuit.open()
    with pytest.raises(CallError, match="the circuit breaker is open"):
        world.call().begin()
    world.cluster.breaker.circuit.close()
    world.serve()
    moves = [(e.before, e.after) for e in heard(world, BreakerMoved) if isinstance(e, BreakerMoved)]
    assert moves == [("closed", "open"), ("open", "closed")]


# --- forks and threads -------------------------------------------------------------------------------


def test_a_forked_child_owes_nothing_for_its_parents_calls(world: World) -> None:
    world.cluster.states()[0].ewma = 0.25
    calls = [world.call() for _ in range(4)]
    attempts = [exchange.begin() for exchange in calls]
    calls[3].answered(attempts[3], 200)
    world.cluster.forget_in_flight()
    assert (world.cluster.in_flight, world.cluster.states()[0].ewma) == (0, 0.25)
    assert [state.inflight for state in world.cluster.states()] == [0, 0, 0]
    calls[0].abandon(attempts[0])
    calls[1].failed(attempts[1], RESET)
    calls[2].answered(attempts[2], 500)
    calls[2].finished(attempts[2])
    calls[3].finished(attempts[3])
    assert world.cluster.in_flight == 0
    assert [(s.inflight, s.consecutive, s.total) for s in world.cluster.states()] == [(0, 0, 0)] * 3


def test_threads_lose_no_count() -> None:
    cluster = Cluster(
        "payments",
        plan(breaker={"consecutive_failures": 0}, outlier={"consecutive_failures": 0, "success_rate": 0.0}),
        clock=lambda: 1.0,
        rng=random.Random(1),
        sink=lambda event: None,
    )
    cluster.update(Snapshot("payments", endpoints(3)))
    faults: list[BaseException] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(400):
                exchange = cluster.exchange(Call("GET"))
                attempt = exchange.begin()
                if rng.random() < 0.3:
                    exchange.failed(attempt, REFUSED)
                elif rng.random() < 0.3:
                    exchange.abandon(attempt)
                else:
                    exchange.answered(attempt, 200)
                    exchange.finished(attempt)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert cluster.in_flight == 0
    assert [state.inflight for state in cluster.states()] == [0, 0, 0]


def test_a_slot_is_given_back_once(world: World) -> None:
    exchange = world.call()
    attempt = exchange.begin()
    exchange.abandon(attempt)
    for give_back in (world.cluster.release, lambda attempt: world.cluster.conclude(attempt, True, world.now)):
        with pytest.raises(RuntimeError, match=r"try 1 to 10\.0\.0\.\d:80 was given back before"):
            give_back(attempt)
    assert world.cluster.in_flight == 0


def test_an_outcome_is_counted_once(world: World) -> None:
    attempt = world.call().begin()
    for _ in range(9):
        world.cluster.record(attempt, False, world.now, "reset")
    assert (attempt.state.consecutive, world.cluster.breaker.circuit.fail_counter) == (1, 1)


def test_a_sink_may_ask_the_cluster_anything() -> None:
    """The sink is never called under the lock, or this would hang."""
    seen: list[tuple[int, float]] = []
    cluster = Cluster(
        "payments",
        plan(breaker={"consecutive_failures": 1}),
        clock=lambda: 1.0,
        rng=random.Random(1),
        sink=lambda event: seen.append((cluster.in_flight, cluster.budget_balance)),
    )
    cluster.update(Snapshot("payments", endpoints(1)))
    exchange = cluster.exchange(Call("GET"))
    exchange.failed(exchange.begin(), RESET)
    assert [in_flight for in_flight, _ in seen] == [0, 0, 0], (
        "breaker, attempt, call: all after the slot was given back"
    )


# --- any order ---------------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Invariant: however many calls, updates and policies interleave, what is counted is what is open.

    In-flight counts equal the open attempts, in all and per endpoint, and are never below zero; so are the connections
    waited for, the breaker's permits and the budget. Each call that ended was told exactly once.
    """

    @initialize(algorithm=st.sampled_from(["peak-ewma", "least-request", "round-robin", "random"]))
    def open_world(self, algorithm: str) -> None:
        self.base = {
            "balancing": {"algorithm": algorithm},
            "limits": {"max_requests": 6, "max_pending": 2, "max_connections_per_endpoint": 1},
            "breaker": {"consecutive_failures": 4, "probes": 2},
            "outlier": {"consecutive_failures": 2, "base_ejection": 3.0},
            "retries": {"budget_min_per_second": 0.2},
        }
        self.world = World(plan(**self.base))
        self.waiting: list[tuple[Exchange, Attempt]] = []
        self.reading: list[tuple[Exchange, Attempt]] = []
        self.pausing: list[Exchange] = []
        self.begun = 0

    def begin(self, exchange: Exchange) -> None:
        with suppress(CallError):
            self.waiting.append((exchange, exchange.begin()))

    @rule(deadline=st.sampled_from([None, 0.001, 2.0]), safe=st.booleans())
    def call(self, deadline: float | None, safe: bool) -> None:
        self.begun += 1
        own = None if deadline is None else self.world.now + deadline
        self.begin(self.world.call(deadline=own, idempotent=safe, replayable=safe))

    @rule(index=st.integers(0, 20), status=st.sampled_from([200, 404, 429, 500, 503]))
    def answer(self, index: int, status: int) -> None:
        if self.waiting:
            exchange, attempt = self.waiting.pop(index % len(self.waiting))
            verdict = exchange.answered(attempt, status)
            if isinstance(verdict, Final):
                self.reading.append((exchange, attempt))
            else:
                self.pausing.append(exchange)

    @rule(index=st.integers(0, 20), failure=st.sampled_from([REFUSED, RESET, SLOW]))
    def fail(self, index: int, failure: object) -> None:
        if self.waiting:
            exchange, attempt = self.waiting.pop(index % len(self.waiting))
            if isinstance(exchange.failed(attempt, failure), Retry):  # type: ignore[arg-type]
                self.pausing.append(exchange)

    @rule(index=st.integers(0, 20), broken=st.booleans())
    def finish(self, index: int, broken: bool) -> None:
        if self.reading:
            exchange, attempt = self.reading.pop(index % len(self.reading))
            exchange.finished(attempt, RESET if broken else None)

    @rule(index=st.integers(0, 20), head=st.booleans())
    def abandon(self, index: int, head: bool) -> None:
        which = self.reading if head else self.waiting
        if which:
            exchange, attempt = which.pop(index % len(which))
            exchange.abandon(attempt)

    @rule(index=st.integers(0, 20), again=st.booleans())
    def resume(self, index: int, again: bool) -> None:
        if self.pausing:
            exchange = self.pausing.pop(index % len(self.pausing))
            if again:
                self.begin(exchange)
            else:
                exchange.give_up()

    @rule(seconds=st.sampled_from([0.0, 0.002, 1.0, 6.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(kept=st.sets(st.integers(0, 4)), sick=st.sets(st.integers(0, 4)), limbo=st.sets(st.integers(0, 4)))
    def update(self, kept: set[int], sick: set[int], limbo: set[int]) -> None:
        every = [replace(e, healthy=i not in sick, limbo=i in limbo) for i, e in enumerate(endpoints(5))]
        self.world.cluster.update(Snapshot("payments", tuple(e for i, e in enumerate(every) if i in kept)))

    @rule(
        connections=st.sampled_from([0, 1, 2]), failures=st.sampled_from([0, 2, 4]), ratio=st.sampled_from([0.2, 0.5])
    )
    def adopt(self, connections: int, failures: int, ratio: float) -> None:
        limits = {**self.base["limits"], "max_connections_per_endpoint": connections}
        sections = {
            **self.base,
            "limits": limits,
            "breaker": {"consecutive_failures": failures, "probes": 2},
            "outlier": {"consecutive_failures": failures},
            "retries": {"budget_ratio": ratio},
        }
        self.world.cluster.adopt(plan(**sections))

    @rule()
    def fork(self) -> None:
        """The child has the parent's exchanges on its stacks, and ends them: nothing of it may count."""
        self.world.cluster.forget_in_flight()
        for exchange, attempt in (*self.waiting, *self.reading):
            exchange.abandon(attempt)
        self.waiting, self.reading = [], []

    @invariant()
    def counts_are_what_is_open(self) -> None:
        cluster = self.world.cluster
        running = [attempt for _, attempt in (*self.waiting, *self.reading)]
        assert cluster.in_flight == len(running)
        per_state = {id(attempt.state): attempt.state for attempt in running}
        for state in (*cluster.states(), *per_state.values()):
            assert state.inflight == sum(attempt.state is state for attempt in running)
        limit = cluster.plan.limits.max_connections_per_endpoint
        waiting = sum(max(0, state.inflight - limit) for state in per_state.values()) if limit else 0
        assert cluster.pending == waiting
        assert 0 <= cluster.breaker.permits <= len(running)
        assert cluster.budget_balance >= 0

    @invariant()
    def probes_belong_to_open_attempts(self) -> None:
        running = [attempt for _, attempt in (*self.waiting, *self.reading)]
        for state in self.world.cluster.states():
            assert state.probing == any(attempt.probe and attempt.state is state for attempt in running)

    @invariant()
    def every_call_that_ended_was_told_once(self) -> None:
        alive = len(self.waiting) + len(self.reading) + len(self.pausing)
        assert len(self.world.ended()) == self.begun - alive


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)

"""Balancers one by one: shares under fixed seeds, weights, ties, and what peak EWMA learns."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.core.balance import ALGORITHMS, Balancer, LeastRequest, PeakEwma, RandomChoice, RoundRobin, balancer
from meshsdk.core.balance.peak_ewma import DEFAULT_RTT, TAU
from meshsdk.core.model import Endpoint
from meshsdk.core.plan import Balancing
from meshsdk.core.state import EndpointState
from meshsdk.errors import ConfigError


def endpoints(*weights: float) -> tuple[EndpointState, ...]:
    return tuple(EndpointState(Endpoint(f"e{i}", "127.0.0.1", 8000 + i, weight=w)) for i, w in enumerate(weights))


def shares(balance: Balancer, states: Sequence[EndpointState], picks: int = 20_000, now: float = 1.0) -> list[float]:
    rng = random.Random(7)
    counted = Counter(balance.pick(states, now, rng).endpoint.key for _ in range(picks))
    return [counted[state.endpoint.key] / picks for state in states]


def test_every_documented_name_makes_a_balancer() -> None:
    assert {name: type(balancer(Balancing(name, 50))) for name in ALGORITHMS} == {
        "peak-ewma": PeakEwma,
        "least-request": LeastRequest,
        "round-robin": RoundRobin,
        "random": RandomChoice,
    }


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"'fastest' is not known; write one of peak-ewma, least-request, round-robin"
    ):
        balancer(Balancing("fastest", 50))


@pytest.mark.parametrize("name", ALGORITHMS)
@given(
    weights=st.lists(st.floats(0.01, 1000), min_size=1, max_size=6),
    loads=st.lists(st.integers(0, 50), min_size=6, max_size=6),
    seed=st.integers(),
    subset=st.lists(st.integers(0, 5), max_size=3),
)
def test_a_pick_is_always_one_of_the_candidates(
    name: str, weights: list[float], loads: list[int], seed: int, subset: list[int]
) -> None:
    states, rng, balance = endpoints(*weights), random.Random(seed), balancer(Balancing(name, 50))
    for state, load in zip(states, loads, strict=False):
        state.inflight = load
    for now in range(5):
        picked = balance.pick(states, float(now), rng)
        assert picked in states
        balance.observe(picked, 0.01 * now, now % 2 == 0, float(now))
        fewer = [state for i, state in enumerate(states) if i not in subset] or list(states)
        assert balance.pick(fewer, float(now), rng) in fewer


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("count", [2, 3, 10])
def test_idle_equals_share_alike(name: str, count: int) -> None:
    assert shares(balancer(Balancing(name, 50)), endpoints(*[1.0] * count)) == pytest.approx(
        [1 / count] * count, abs=0.015
    )


@pytest.mark.parametrize("name", ["least-request", "round-robin", "random"])
def test_idle_endpoints_share_by_weight(name: str) -> None:
    assert shares(balancer(Balancing(name, 50)), endpoints(1, 2, 5)) == pytest.approx([0.125, 0.25, 0.625], abs=0.015)


@pytest.mark.parametrize("name", ["peak-ewma", "least-request"])
def test_under_load_requests_in_flight_follow_weight(name: str) -> None:
    states, rng, balance = endpoints(1, 2, 5), random.Random(3), balancer(Balancing(name, 50))
    for state in states:
        balance.observe(state, 0.1, True, 1.0)
    for _ in range(800):
        balance.pick(states, 1.0, rng).inflight += 1
    assert [state.inflight for state in states] == pytest.approx([100, 200, 500], abs=10)


def test_a_weight_holds_though_latency_prefers_the_other() -> None:
    states, balance = endpoints(9, 1), PeakEwma()
    balance.observe(states[0], 0.030, True, 1.0)
    balance.observe(states[1], 0.010, True, 1.0)
    heavy, light = shares(balance, states)
    assert heavy == pytest.approx(0.81, abs=0.015)  # both draws fell on it: 0.9 * 0.9
    assert light == pytest.approx(0.19, abs=0.015)


def test_candidates_left_out_are_not_picked_and_weights_are_read_anew() -> None:
    balance, states, rng = RandomChoice(), endpoints(1, 1, 8), random.Random(5)
    assert balance.pick(states, 0.0, rng) in states
    assert shares(balance, list(states[:2])) == pytest.approx([0.5, 0.5], abs=0.015)
    assert shares(balance, states) == pytest.approx([0.1, 0.1, 0.8], abs=0.015)


class TestLeastRequest:
    def test_the_less_loaded_of_two_is_taken(self) -> None:
        states = endpoints(1, 1)
        states[0].inflight = 1
        assert shares(LeastRequest(), states) == [0.0, 1.0]

    def test_the_most_loaded_of_many_gets_nothing_and_the_least_at_most_two_in_n(self) -> None:
        states = endpoints(*[1.0] * 5)
        for load, state in enumerate(states):
            state.inflight = load
        # of the 10 pairs, the k-th least loaded wins those with the ones above it: 4, 3, 2, 1, 0
        assert shares(LeastRequest(), states) == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0], abs=0.015)


class TestRoundRobin:
    def picks(self, balance: RoundRobin, states: Sequence[EndpointState], count: int) -> list[str]:
        rng = random.Random(11)
        return [balance.pick(states, 0.0, rng).endpoint.key for _ in range(count)]

    def test_equals_take_turns_in_one_order(self) -> None:
        cycle = self.picks(RoundRobin(), endpoints(1, 1, 1, 1), 40)
        assert cycle == cycle[:4] * 10
        assert len(set(cycle[:4])) == 4

    def test_heavier_turns_are_spread_over_the_cycle(self) -> None:
        cycle = self.picks(RoundRobin(), endpoints(3, 1), 400)
        light = [i for i, key in enumerate(cycle) if key == "e1"]
        assert {after - before for before, after in pairwise(light)} == {4}

    def test_who_joins_gets_no_more_than_a_turn_ahead(self) -> None:
        balance, states = RoundRobin(), endpoints(1, 1, 1)
        self.picks(balance, states[:2], 1000)
        assert Counter(self.picks(balance, states, 30)) == {"e0": 10, "e1": 10, "e2": 10}

    def test_who_stays_keeps_the_turn_when_another_is_left_out_for_a_retry(self) -> None:
        balance, states, rng = RoundRobin(), endpoints(1, 1, 1), random.Random(2)
        counted: Counter[str] = Counter()
        for _ in range(3000):
            first = balance.pick(states, 0.0, rng)
            again = balance.pick([state for state in states if state is not first], 0.0, rng)
            counted.update((first.endpoint.key, again.endpoint.key))
        assert all(count == pytest.approx(2000, abs=40) for count in counted.values())

    def test_processes_do_not_all_begin_with_the_same(self) -> None:
        states = endpoints(1, 1, 1)
        first = Counter(RoundRobin().pick(states, 0.0, random.Random(seed)).endpoint.key for seed in range(600))
        assert all(count == pytest.approx(200, abs=40) for count in first.values())


class TestPeakEwma:
    balance = PeakEwma()

    def seen(self, seconds: float, *, at: float = 0.0) -> EndpointState:
        state = endpoints(1)[0]
        self.balance.observe(state, seconds, True, at)
        return state

    def test_a_slower_answer_is_believed_at_once(self) -> None:
        state = self.seen(0.010)
        self.balance.observe(state, 2.0, True, 0.1)
        assert state.ewma == 2.0

    def test_faster_answers_are_believed_with_time(self) -> None:
        state = self.seen(2.0)
        self.balance.observe(state, 0.010, True, TAU)
        assert state.ewma == pytest.approx(2.0 * exp(-1) + 0.010 * (1 - exp(-1)))

    def test_silence_makes_cheaper(self) -> None:
        state = self.seen(2.0)
        assert self.balance.cost(state, TAU) == pytest.approx(2.0 * exp(-1))
        assert self.balance.cost(state, 53.0) < 0.010  # rule 2

    def test_hours_of_silence_leave_load_to_decide(self) -> None:
        states = endpoints(1, 1)
        for state in states:
            self.balance.observe(state, 0.010, True, 0.0)
        states[0].inflight = 1
        assert shares(self.balance, states, 100, now=86_400.0) == [0.0, 1.0]

    def test_each_request_under_way_adds_one_wait(self) -> None:
        state = self.seen(0.010)
        state.inflight = 3
        assert self.balance.cost(state, 0.0) == pytest.approx(0.040)

    def test_an_unseen_endpoint_is_tried_with_one_request(self) -> None:
        new, known = endpoints(1, 1)
        self.balance.observe(known, 0.001, True, 1.0)
        known.inflight = 100
        assert shares(self.balance, (new, known), 100) == [1.0, 0.0]
        new.inflight = 1
        assert shares(self.balance, (new, known), 100) == [0.0, 1.0]

    def test_an_answer_in_no_time_counts_as_seen(self) -> None:
        state = self.seen(0.0)
        state.inflight = 1
        assert 0.0 < self.balance.cost(state, 0.0) < 1e-3

    def test_a_fast_failure_never_looks_fast(self) -> None:
        state = self.seen(0.010)
        before = self.balance.cost(state, 0.0)
        for _ in range(10):
            self.balance.observe(state, 0.0001, False, 0.0)
        assert state.ewma == 0.010
        assert self.balance.cost(state, 0.0) == pytest.approx(before * 23, rel=0.03)

    def test_a_slow_failure_is_believed_like_a_slow_answer(self) -> None:
        state = self.seen(0.010)
        self.balance.observe(state, 1.0, False, 0.5)
        assert state.ewma == 1.0

    def test_a_first_outcome_that_is_a_fast_failure_gives_no_credit(self) -> None:
        state = endpoints(1)[0]
        self.balance.observe(state, 0.0001, False, 0.0)
        assert state.ewma == DEFAULT_RTT

    def test_endless_failures_have_a_finite_cost(self) -> None:
        state = self.seen(0.010)
        for _ in range(2000):
            self.balance.observe(state, 0.0001, False, 0.0)
        assert self.balance.cost(state, 0.0) == pytest.approx(0.010 * 1e6, rel=0.01)

    def test_failures_fade_so_that_a_recovered_endpoint_is_found(self) -> None:
        state = self.seen(0.010)
        for _ in range(50):
            self.balance.observe(state, 0.0001, False, 0.0)
        assert self.balance.cost(state, 15.0) < 0.010

    def test_stray_errors_change_next_to_nothing(self) -> None:
        state, rng, now = self.seen(0.010), random.Random(1), 0.0
        costs = []
        for _ in range(10_000):
            now += 0.01
            self.balance.observe(state, 0.010, rng.random() > 0.01, now)
            costs.append(self.balance.cost(state, now))
        assert sum(costs) / len(costs) < 0.0105

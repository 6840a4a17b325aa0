"""Ejection: what ejects, how many may go, how long, and the way back through a probe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meshsdk.core.model import Endpoint
from meshsdk.core.outlier import Ejection, OutlierDetector, Reinstatement
from meshsdk.core.plan import Outlier
from meshsdk.core.state import EndpointState

PLAN = Outlier(
    consecutive_failures=5,
    success_rate=0.8,
    min_requests=20,
    interval=10.0,
    base_ejection=30.0,
    max_ejection=300.0,
    max_ejected_percent=50.0,
)


class Bench:
    """A few endpoints and a detector."""

    def __init__(self, count: int, **changes: Any) -> None:
        self.detector = OutlierDetector(replace(PLAN, **changes))
        self.states = [EndpointState(Endpoint(f"e{i}", "127.0.0.1", 8000 + i)) for i in range(count)]
        self.probes: dict[str, bool] = {}

    def record(self, which: int, ok: bool, now: float, probe: bool = False) -> Ejection | Reinstatement | None:
        return self.detector.record(self.states[which], ok, now, self.states, probe)

    def fail(self, which: int, now: float, times: int = 5) -> Ejection | Reinstatement | None:
        """The last verdict of so many failures in a row."""
        verdicts = [self.record(which, False, now) for _ in range(times)]
        assert verdicts[:-1] == [None] * (times - 1)
        return verdicts[-1]

    def probe(self, which: int, ok: bool, now: float) -> Ejection | Reinstatement | None:
        assert self.detector.began(self.states[which], now)
        return self.record(which, ok, now, probe=True)

    @property
    def away(self) -> int:
        return sum(state.ejected_until > 0 for state in self.states)


def test_the_fifth_failure_in_a_row_ejects() -> None:
    bench = Bench(3)
    assert bench.fail(0, 1.0, times=4) is None
    assert bench.record(0, False, 1.5) == Ejection("consecutive-failures", 30.0)
    assert not bench.detector.admits(bench.states[0], 31.4)
    assert bench.detector.admits(bench.states[1], 31.4)


def test_a_good_answer_begins_the_row_anew() -> None:
    bench = Bench(3)
    bench.fail(0, 1.0, times=4)
    bench.record(0, True, 1.0)
    assert bench.fail(0, 1.0, times=4) is None


def test_zero_turns_a_rule_off() -> None:
    bench = Bench(3, consecutive_failures=0, success_rate=0.0)
    assert bench.fail(0, 1.0, times=100) is None
    assert bench.record(0, False, 12.0) is None


class TestSuccessRate:
    def interval(self, bench: Bench, good: int, bad: int, start: float = 0.0) -> None:
        """One interval of outcomes with no five failures in a row."""
        outcomes = [True] * good + [False] * bad
        for i in range(len(outcomes)):
            assert bench.record(0, outcomes[i * 7 % len(outcomes)], start + i * 0.1) is None

    def test_a_poor_interval_ejects_when_it_ends(self) -> None:
        bench = Bench(3, consecutive_failures=0)
        self.interval(bench, good=23, bad=7)
        assert bench.record(0, True, 10.0) == Ejection("success-rate", 30.0)

    def test_the_bound_itself_is_good_enough(self) -> None:
        bench = Bench(3, consecutive_failures=0)
        self.interval(bench, good=24, bad=6)
        assert bench.record(0, True, 10.0) is None

    def test_too_few_answers_say_nothing(self) -> None:
        bench = Bench(3, consecutive_failures=0)
        self.interval(bench, good=0, bad=19)
        assert bench.record(0, False, 10.0) is None

    def test_an_old_interval_says_nothing(self) -> None:
        bench = Bench(3, consecutive_failures=0)
        self.interval(bench, good=10, bad=20)
        assert bench.record(0, True, 20.0) is None

    def test_each_interval_is_counted_alone(self) -> None:
        bench = Bench(3, consecutive_failures=0)
        self.interval(bench, good=30, bad=0)
        self.interval(bench, good=10, bad=19, start=10.0)
        assert bench.record(0, False, 20.0) == Ejection("success-rate", 30.0)


class TestHowManyMayGo:
    @pytest.mark.parametrize(
        ("count", "percent", "may"),
        [
            (1, 100, 0),
            (2, 10, 1),
            (2, 100, 1),
            (3, 50, 1),
            (3, 100, 2),
            (4, 50, 2),
            (9, 10, 1),
            (20, 10, 2),
            (5, 0, 0),
            (375, 18.4, 69),
        ],
    )
    def test_share_of_all_never_all_and_one_of_two(self, count: int, percent: float, may: int) -> None:
        bench = Bench(count, max_ejected_percent=percent)
        for which in range(count):
            for _ in range(10):
                bench.record(which, False, 1.0)
        assert bench.away == may

    @pytest.mark.parametrize("change", [{"healthy": False}, {"limbo": True}])
    def test_who_is_not_called_anyway_does_not_count(self, change: dict[str, Any]) -> None:
        bench = Bench(3, max_ejected_percent=100)
        for state in bench.states[1:]:
            state.endpoint = replace(state.endpoint, **change)
        assert bench.fail(0, 1.0) is None  # it is the last one
        assert bench.fail(1, 1.0) is None  # and this one is not called, so there is nothing to take away

    def test_one_on_probation_still_counts_as_away(self) -> None:
        bench = Bench(2)
        bench.fail(0, 0.0)
        assert bench.fail(1, 31.0) is None

    def test_a_failing_endpoint_goes_once_there_is_room(self) -> None:
        bench = Bench(2)
        bench.fail(0, 0.0)
        assert bench.fail(1, 1.0, times=7) is None
        bench.probe(0, True, 31.0)
        assert bench.record(1, False, 31.0) == Ejection("consecutive-failures", 30.0)


class TestProbation:
    def ejected(self) -> Bench:
        bench = Bench(3)
        bench.fail(0, 0.0)
        return bench

    def test_one_request_at_a_time_is_the_probe(self) -> None:
        bench = self.ejected()
        state = bench.states[0]
        assert not bench.detector.began(state, 29.9)
        assert bench.detector.admits(state, 30.0)
        assert bench.detector.began(state, 30.0)
        assert not bench.detector.admits(state, 30.0)
        assert not bench.detector.began(state, 30.0)

    def test_a_good_answer_brings_it_back_with_clean_counters(self) -> None:
        bench = self.ejected()
        assert bench.probe(0, True, 30.0) == Reinstatement()
        assert bench.detector.admits(bench.states[0], 30.0)
        assert bench.fail(0, 30.0, times=4) is None

    def test_a_failure_ejects_it_again_for_longer(self) -> None:
        bench = self.ejected()
        assert bench.probe(0, False, 30.0) == Ejection("probe-failed", 60.0)
        assert not bench.detector.admits(bench.states[0], 89.9)
        assert bench.probe(0, False, 90.0) == Ejection("probe-failed", 90.0)

    def test_a_probe_called_off_makes_room_for_another(self) -> None:
        bench = self.ejected()
        bench.detector.began(bench.states[0], 30.0)
        bench.detector.released(bench.states[0])
        assert bench.detector.began(bench.states[0], 30.0)

    @pytest.mark.parametrize("ok", [True, False])
    def test_what_began_before_the_ejection_says_nothing(self, ok: bool) -> None:
        bench = self.ejected()
        bench.detector.began(bench.states[0], 30.0)
        assert [bench.record(0, ok, 30.0) for _ in range(10)] == [None] * 10
        assert bench.states[0].probing
        assert bench.record(0, True, 30.0, probe=True) == Reinstatement()

    def test_the_registry_ends_an_ejection_to_probation(self) -> None:
        bench = self.ejected()
        bench.detector.revived(bench.states[0], 5.0)
        assert bench.probe(0, True, 5.0) == Reinstatement()

    def test_in_rotation_nothing_is_a_probe(self) -> None:
        bench = Bench(3)
        assert not bench.detector.began(bench.states[0], 1.0)


class TestLengthOfEjection:
    def test_it_grows_to_its_bound(self) -> None:
        bench, now, lengths = Bench(3), 0.0, []
        bench.fail(0, now)
        for _ in range(11):
            now = bench.states[0].ejected_until
            verdict = bench.probe(0, False, now)
            assert isinstance(verdict, Ejection)
            lengths.append(verdict.seconds)
        assert lengths == [60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]

    def test_each_interval_that_was_not_poor_takes_a_step_back(self) -> None:
        bench = Bench(3)
        bench.fail(0, 0.0)
        bench.probe(0, False, 30.0)
        bench.probe(0, False, 90.0)
        bench.probe(0, True, 180.0)  # three ejections so far
        bench.record(0, True, 190.0)
        assert bench.fail(0, 191.0) == Ejection("consecutive-failures", 90.0)

    def test_long_after_it_begins_anew(self) -> None:
        bench = Bench(3)
        bench.fail(0, 0.0)
        bench.probe(0, False, 30.0)
        bench.probe(0, True, 90.0)
        assert bench.fail(0, 1000.0) == Ejection("consecutive-failures", 30.0)

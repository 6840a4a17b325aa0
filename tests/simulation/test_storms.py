"""Outages: retries stay within their budget, ejection leaves someone, and everything comes back afterwards."""

from __future__ import annotations

from functools import cache, partial

import pytest

from meshsdk.core.events import Ejected, Returned
from tests.simulation.simulator import Report, Server, Simulation, constant, plan

pytestmark = [
    pytest.mark.no_cover,  # what is covered here is covered by unit tests; tracing makes it five times as slow
    pytest.mark.timeout(300),  # it waits for nothing, and computes for 10 s on a machine with nothing else to do
]

RATIO, MIN_PER_SECOND, WINDOW = 0.2, 10.0, 10.0


def attempts(report: Report, start: float, end: float) -> int:
    return sum(start <= at < end for server in report.servers for at in server.served)


def calls(report: Report, start: float, end: float) -> int:
    return sum(start <= outcome.started < end for outcome in report.outcomes)


@cache
def storm() -> Report:
    """All of five servers refuse for 20 s of 40 s, at 500 calls/s with up to 3 attempts."""
    servers = [Server(f"s{i}") for i in range(5)]
    for server in servers:
        server.between(10, 30, status=503, latency=constant(0.005))
    report = Simulation(plan(attempts=3), servers, seed=1).run(rate=500, seconds=40)
    print(report)
    return report


class TestRetryStorm:
    def test_attempts_stay_within_the_budget(self) -> None:
        report = storm()
        during = calls(report, 10, 30)
        # the window before the outage earned deposits that the outage may spend, hence WINDOW more seconds of each
        retries = RATIO * calls(report, 10 - WINDOW, 30) + MIN_PER_SECOND * (30 - 10 + WINDOW)
        assert attempts(report, 10, 30) <= during + retries
        assert attempts(report, 20, 30) <= 1.2 * calls(report, 20, 30) + MIN_PER_SECOND * 10 + 30

    def test_the_budget_is_used(self) -> None:
        report = storm()
        assert attempts(report, 20, 30) >= 1.15 * calls(report, 20, 30)

    def test_without_a_budget_there_would_be_three_for_each(self) -> None:
        report = storm()
        refused = [outcome for outcome in report.outcomes if 15 <= outcome.started < 29]
        assert {outcome.reason for outcome in refused} == {"attempts-used", "budget-empty"}

    def test_before_and_after_nothing_is_retried(self) -> None:
        report = storm()
        assert attempts(report, 1, 9) == pytest.approx(calls(report, 1, 9), abs=1)
        assert report.success(start=31) == 1.0


def test_a_thousand_failures_at_once_do_not_all_find_the_same_budget() -> None:
    """Envoy #30205: retries that wait in their pause must hold the budget they will use."""
    servers = [Server(f"s{i}", status=503, latency=constant(0.01)) for i in range(5)]
    report = Simulation(plan(attempts=2), servers, seed=2).burst(1000)
    assert sum(outcome.attempts for outcome in report.outcomes) <= 1000 * (1 + RATIO) + MIN_PER_SECOND * WINDOW + 1


class TestEjection:
    @pytest.mark.parametrize("count", [2, 3, 11])
    @pytest.mark.parametrize("percent", [10.0, 50.0, 100.0])
    def test_it_never_takes_the_last(self, count: int, percent: float) -> None:
        servers = [Server(f"s{i}") for i in range(count)]
        for server in servers:
            server.between(2, 30, status=503, latency=constant(0.005))
        policy = plan("round-robin", ejecting=True, max_ejected_percent=percent, panic_threshold=0)
        report = Simulation(policy, servers, seed=3).run(rate=50, seconds=60)
        most = min(max(1, int(count * percent / 100)), count - 1)
        assert report.fewest_in_rotation == count - most
        assert "no-endpoint" not in {outcome.reason for outcome in report.outcomes}

    def test_a_single_server_is_never_ejected(self) -> None:
        servers = [Server("only", status=503)]
        report = Simulation(plan(ejecting=True), servers, seed=4).run(rate=50, seconds=10)
        assert report.events == []

    def test_after_the_outage_all_are_back(self) -> None:
        servers = [Server(f"s{i}") for i in range(4)]
        for server in servers[:2]:
            server.between(2, 30, status=0, latency=constant(0.001))
        simulation = Simulation(plan(attempts=3, ejecting=True), servers, seed=5)
        report = simulation.run(rate=100, seconds=150)
        print(report)
        assert report.success() == 1.0
        assert {type(event) for _, event in report.events} == {Ejected, Returned}
        assert not any(state.ejected_until for state in simulation.cluster.states())
        assert all(server.share(report, 130) > 0.1 for server in servers)

    def test_each_return_is_tried_with_one_request(self) -> None:
        servers = [Server("dead", status=503, latency=constant(0.2)), Server("s1"), Server("s2")]
        report = Simulation(plan("round-robin", ejecting=True), servers, seed=6).run(rate=100, seconds=100)
        ejected = [(at, event.reason) for at, event in report.events if isinstance(event, Ejected)]
        assert [reason for _, reason in ejected] == ["consecutive-failures", "probe-failed", "probe-failed"]
        first = ejected[0][0]
        assert len([at for at in servers[0].served if at > first]) == 2


class TestPanic:
    def run(self, threshold: float) -> Report:
        """The registry calls three of four working servers unhealthy; one alone can hardly be right."""
        servers = [Server(f"s{i}") for i in range(4)]
        simulation = Simulation(plan("round-robin", panic_threshold=threshold), servers, seed=7)
        for server in servers[1:]:
            simulation.at(5.0, partial(simulation.mark, server.name, healthy=False))
        return simulation.run(rate=100, seconds=10)

    def test_in_panic_the_load_stays_spread(self) -> None:
        report = self.run(50)
        assert all(server.share(report, 6) == pytest.approx(0.25, abs=0.01) for server in report.servers)

    def test_without_it_one_server_carries_all(self) -> None:
        report = self.run(0)
        assert report.servers[0].share(report, 6) == 1.0

"""A user's tenacity objects: what they see, and how they and the plan share the decision."""

from __future__ import annotations

import pytest
import tenacity

from meshsdk.core.attempt import Final, Retry
from meshsdk.core.model import Failure, Phase
from tests.core.world import REFUSED, RESET, World, plan


def test_a_wait_object_replaces_the_backoff() -> None:
    world = World(wait=tenacity.wait_fixed(1.5))
    exchange = world.call()
    assert exchange.failed(exchange.begin(), RESET) == Retry(1.5, "reset")


def test_chained_and_exponential_waits_see_the_number() -> None:
    world = World(plan(retries={"attempts": 4}), wait=tenacity.wait_exponential(multiplier=1))
    exchange = world.call()
    assert [exchange.failed(exchange.begin(), RESET) for _ in range(3)] == [
        Retry(1, "reset"), Retry(2, "reset"), Retry(4, "reset")
    ]  # fmt: skip


def test_retry_after_still_holds() -> None:
    world = World(wait=tenacity.wait_fixed(0.1))
    exchange = world.call()
    assert exchange.answered(exchange.begin(), 503, 2.0) == Retry(2.0, "status-503")


def test_the_deadline_still_holds() -> None:
    world = World(wait=tenacity.wait_fixed(20))
    exchange = world.call()
    assert exchange.failed(exchange.begin(), RESET) == Final("deadline")


def test_a_stop_object_ends_the_tries_early_but_never_prolongs_them() -> None:
    world = World(stop=tenacity.stop_after_attempt(2))
    exchange = world.call()
    assert isinstance(exchange.failed(exchange.begin(), RESET), Retry)
    assert exchange.failed(exchange.begin(), RESET) == Final("stopped")
    world = World(stop=tenacity.stop_never)
    exchange = world.call()
    assert [type(exchange.failed(exchange.begin(), RESET)) for _ in range(3)] == [Retry, Retry, Final]


def test_stops_by_time_use_the_cores_clock() -> None:
    world = World(wait=tenacity.wait_fixed(0), stop=tenacity.stop_after_delay(2.0))
    exchange = world.call()
    attempt = exchange.begin()
    world.now += 1.9
    assert isinstance(exchange.failed(attempt, RESET), Retry)
    attempt = exchange.begin()
    world.now += 0.1
    assert exchange.failed(attempt, RESET) == Final("stopped")


def test_stop_before_delay_sees_the_coming_pause() -> None:
    world = World(wait=tenacity.wait_fixed(3), stop=tenacity.stop_before_delay(2.0))
    exchange = world.call()
    assert exchange.failed(exchange.begin(), RESET) == Final("stopped")


def test_the_state_is_filled_as_tenacity_fills_it() -> None:
    seen: list[tuple[object, ...]] = []

    def wait(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        what = state.outcome.exception() if state.outcome.failed else state.outcome.result()
        seen.append((state.attempt_number, what, state.seconds_since_start, state.idle_for, state.get_fn_name() != ""))
        return 0.25

    world = World(plan(retries={"attempts": 4}), wait=wait)
    exchange = world.call()
    exchange.failed(exchange.begin(), REFUSED)
    world.now += 1.0
    exchange.answered(exchange.begin(), 503)
    exchange.failed(exchange.begin(), Failure(Phase.WRITTEN, "timeout", "no reply in time"))
    assert seen[0] == (1, REFUSED.cause, 0.0, 0.0, True)
    assert seen[1] == (2, 503, 1.0, 0.25, True)
    assert (seen[2][0], type(seen[2][1]), str(seen[2][1]), seen[2][3]) == (3, ConnectionError, "no reply in time", 0.5)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_nonsensical_wait_is_an_error_and_leaves_nothing_behind(seconds: float) -> None:
    world = World(wait=lambda state: seconds)
    exchange = world.call()
    attempt = exchange.begin()
    with pytest.raises(ValueError, match="must return 0 or more seconds"):
        exchange.failed(attempt, RESET)
    assert (world.cluster.in_flight, [e.reason for e in world.ended()]) == (0, ["strategy-failed"])


def test_a_strategy_that_raises_on_a_reply_gives_the_slot_back() -> None:
    def broken(state: tenacity.RetryCallState) -> bool:
        raise LookupError("the user's own mistake")

    world = World(stop=broken)
    exchange = world.call()
    attempt = exchange.begin()
    with pytest.raises(LookupError, match="own mistake"):
        exchange.answered(attempt, 503)
    assert (world.cluster.in_flight, attempt.open, len(world.ended())) == (0, False, 1)


def test_strategies_cost_an_ordinary_call_nothing() -> None:
    def never(state: tenacity.RetryCallState) -> bool:
        raise AssertionError("asked without a failure")

    assert World(stop=never).serve(200) == Final("answered")

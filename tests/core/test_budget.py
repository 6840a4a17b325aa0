"""The retry budget: its arithmetic, its window, and what bounds it whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.core.budget import RetryBudget


def test_five_requests_earn_one_retry() -> None:
    budget = RetryBudget(0.2, 0.0, 10.0, now=0.0)
    for _ in range(4):
        budget.deposit(0.0)
    assert not budget.withdraw(0.0)
    budget.deposit(0.0)
    assert budget.withdraw(0.0)
    assert not budget.withdraw(0.0)


def test_the_reserve_is_there_without_requests() -> None:
    budget = RetryBudget(0.2, 10.0, 10.0, now=0.0)
    assert budget.balance(0.0) == 100.0
    assert sum(budget.withdraw(0.0) for _ in range(200)) == 100
    assert budget.balance(0.0) == 0.0


def test_deposits_expire_with_the_window_and_not_before() -> None:
    budget = RetryBudget(1.0, 0.0, 10.0, now=0.0)
    budget.deposit(0.5)
    assert budget.balance(9.9) == 1.0
    assert budget.balance(10.1) == 0.0


def test_what_was_taken_from_the_reserve_returns_after_the_window() -> None:
    budget = RetryBudget(0.0, 1.0, 10.0, now=0.0)
    assert sum(budget.withdraw(0.5) for _ in range(11)) == 10
    assert not budget.withdraw(9.5)
    assert budget.withdraw(10.5)


def test_earned_retries_are_spent_before_the_reserve() -> None:
    budget = RetryBudget(1.0, 0.1, 10.0, now=0.0)
    budget.deposit(0.0)
    assert budget.withdraw(0.0)
    assert budget.balance(0.0) == 1.0, "the reserve is untouched"
    assert budget.withdraw(5.0)
    assert budget.balance(10.5) == 0.0, "and what was borrowed of it at 5 s is still out"
    assert budget.balance(16.0) == 1.0


def test_a_retry_may_be_part_earned_and_part_borrowed() -> None:
    budget = RetryBudget(0.5, 0.1, 10.0, now=0.0)
    budget.deposit(0.0)
    assert budget.withdraw(0.0)
    assert budget.balance(0.0) == 0.5


def test_a_long_silence_forgets_everything() -> None:
    budget = RetryBudget(1.0, 0.0, 10.0, now=0.0)
    budget.deposit(0.0)
    assert budget.balance(1e9) == 0.0


@pytest.mark.parametrize("window", [0.0, -1.0, float("nan")])
def test_a_window_must_be_positive(window: float) -> None:
    with pytest.raises(ValueError, match="write more than 0"):
        RetryBudget(0.2, 10.0, window, now=0.0)


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.0, 4.0)), max_size=200),
    st.sampled_from([0.0, 0.2, 0.3, 1.0]),
    st.sampled_from([0.0, 0.1, 2.0]),
)
def test_never_negative_and_never_more_than_was_earned(
    steps: list[tuple[bool, float]], ratio: float, rate: float
) -> None:
    """Invariant: the balance is never below 0, and retries never exceed ratio x requests + rate x (window + time)."""
    budget, now, requests, retries = RetryBudget(ratio, rate, 10.0, now=0.0), 0.0, 0, 0
    for is_request, pause in steps:
        now += pause
        if is_request:
            budget.deposit(now)
            requests += 1
        else:
            before = budget.balance(now)
            granted = budget.withdraw(now)
            assert granted is (before >= 1)
            retries += granted
        assert budget.balance(now) >= 0
        assert retries <= ratio * requests + rate * (10.0 + now) + 1e-6

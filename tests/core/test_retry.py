"""Backoff and the bounded set of reasons; what leads to which reason is tested with the exchange."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.core.model import Call, Failure, Phase
from meshsdk.core.retry import backoff, forbidden
from tests.core.world import PLAN, plan

REASONS = {
    "", "answered", "retries-off", "not-retried-status", "not-retried-connect-failure", "not-retried-reset",
    "not-retried-timeout", "not-retried-protocol", "not-retried-tls", "not-retried-closed", "attempts-used",
    "not-idempotent", "body-not-replayable",
}  # fmt: skip


@pytest.mark.parametrize(("number", "ceiling"), [(1, 0.025), (2, 0.05), (3, 0.1), (4, 0.2), (5, 0.25), (5000, 0.25)])
def test_full_jitter_fills_the_whole_range(number: int, ceiling: float) -> None:
    rng = random.Random(1)
    pauses = [backoff(PLAN.retries, number, rng) for _ in range(4000)]
    assert 0 <= min(pauses) < 0.02 * ceiling
    assert 0.98 * ceiling < max(pauses) <= ceiling
    assert statistics.mean(pauses) == pytest.approx(ceiling / 2, rel=0.05)


CALLS = st.builds(Call, st.just("POST"), idempotent=st.booleans(), replayable=st.booleans())
RULES = st.fixed_dictionaries({name: st.booleans() for name in ("any_method", "connect_failure", "reset")})
KINDS = st.sampled_from(["connect-failure", "tls", "reset", "timeout", "protocol", "closed"])
OUTCOMES = st.one_of(st.integers(100, 599), st.builds(Failure, st.sampled_from(Phase), KINDS))


@given(st.integers(1, 6), CALLS, RULES, OUTCOMES)
def test_a_written_request_is_never_repeated_against_the_rules(
    number: int, call: Call, rules: dict[str, bool], outcome: int | Failure
) -> None:
    """Invariant: what was or may have been written is tried again only if idempotent (or lifted) and replayable."""
    retries = plan(retries=rules).retries
    reason = forbidden(retries, call, number, outcome)
    assert reason in REASONS
    if reason:
        return
    assert number < retries.attempts
    if isinstance(outcome, int):
        assert outcome in retries.statuses
    written = isinstance(outcome, int) or outcome.phase >= Phase.WRITTEN
    if written:
        assert call.replayable
        assert call.idempotent or rules["any_method"]

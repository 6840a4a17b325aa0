"""Token buckets. Invariant: in any stretch of time no key is given more than the burst and what came back meanwhile,
and what it is told to wait is enough and not a nanosecond too long.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsdk.core.token_bucket import TokenBuckets

# Rates whose interval is a whole number of nanoseconds, and times that are: what is compared is exact then.
rates = st.sampled_from([0.5, 1.0, 8.0, 20.0, 1000.0])
bursts = st.integers(1, 50)
pauses = st.lists(st.integers(0, 3 * 10**9), min_size=1, max_size=80)
SECOND = 10**9


@settings(deadline=None)
@given(rates, bursts, pauses)
def test_it_is_a_bucket_of_tokens(rate, burst, pauses):
    """Compared with the plain model: a number of tokens that grows with time up to the burst."""
    buckets, tokens, now, back = TokenBuckets(rate, burst, 10), burst * SECOND, 0, int(rate * 2)
    for pause in pauses:
        now += pause
        tokens = min(burst * SECOND, tokens + pause * back // 2)
        given_one = buckets.take("a", now / SECOND) == 0
        # Times pass through floats, and are a nanosecond off at most.
        if abs(tokens - SECOND) > 2 * rate:
            assert given_one == (tokens > SECOND)
        tokens -= SECOND * given_one


@settings(deadline=None)
@given(rates, bursts, pauses)
def test_no_stretch_of_time_gives_more_than_its_share(rate, burst, pauses):
    buckets, now, given_at = TokenBuckets(rate, burst, 10), 0, []
    for pause in pauses:
        now += pause
        if not buckets.take("a", now / SECOND):
            given_at.append(now / SECOND)
    for number, first in enumerate(given_at):
        for more, last in enumerate(given_at[number:], 1):
            assert more <= burst + rate * (last - first) + 1e-5


@settings(deadline=None)
@given(rates, bursts, st.integers(1, 100))
def test_the_wait_is_what_it_takes(rate, burst, asks):
    buckets = TokenBuckets(rate, burst, 10)
    waits = [buckets.take("a", 50.0) for _ in range(asks)]
    assert waits == [0.0] * min(asks, burst) + [pytest.approx(1 / rate)] * (asks - burst)
    if wait := waits[-1]:
        assert buckets.take("a", 50.0 + wait - 1e-6) == pytest.approx(1e-6, rel=0.01)
        assert buckets.take("a", 50.0 + wait + 1e-8) == 0
        assert buckets.take("a", 50.0 + wait + 1e-8) > 0


@settings(deadline=None)
@given(rates, st.integers(2, 50))
def test_who_asks_no_faster_than_the_rate_is_never_refused(rate, burst):
    buckets = TokenBuckets(rate, burst, 10)
    assert not any(buckets.take("a", number / rate) for number in range(200))


def test_a_refusal_takes_nothing_and_keys_are_apart():
    buckets = TokenBuckets(1.0, 1, 10)
    assert buckets.take("a", 0.0) == 0
    assert [buckets.take("a", 0.5) for _ in range(5)] == [0.5] * 5
    assert buckets.take("b", 0.5) == 0
    assert buckets.take("a", 1.0) == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), max_size=200), st.integers(1, 8))
def test_the_table_is_bounded_and_forgets_who_asked_least_recently(keys, most):
    buckets, recent = TokenBuckets(0.001, 1, most), []
    for key in keys:
        known = key in recent
        assert (buckets.take(str(key), 0.0) > 0) == known
        recent = [*(other for other in recent if other != key), key][-most:]
        assert len(buckets) == len(recent)


@pytest.mark.parametrize("wrong", [(0.0, 1, 1), (-1.0, 1, 1), (2e9, 1, 1), (1.0, 0, 1), (1.0, 1, 0)])
def test_what_is_no_bucket_is_refused(wrong):
    with pytest.raises(ValueError, match="write"):
        TokenBuckets(*wrong)

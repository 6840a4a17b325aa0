"""Invariant: whatever Consul answers, the next index is 0 or at least 1 and not older, pauses are finite and bounded,
a change is never followed by a pause, and answers without change come to at most 4 a second after the burst."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk_registry import MAX_WAIT, BackOff, BlockingQuery, listen_for


def test_the_first_query_does_not_block():
    assert BlockingQuery(0.0).index == 0


def test_an_index_below_one_becomes_one():
    query = BlockingQuery(0.0)
    query.answered(0, changed=True, now=0.0)
    assert query.index == 1


def test_an_index_that_goes_back_starts_over():
    query = BlockingQuery(0.0)
    query.answered(100, changed=True, now=0.0)
    query.answered(7, changed=True, now=1.0)
    assert query.index == 0
    query.answered(7, changed=False, now=1.0)
    assert query.index == 7


def test_a_failure_starts_over():
    query = BlockingQuery(0.0)
    query.answered(100, changed=True, now=0.0)
    assert 0.01 <= query.failed(random.Random(1)) <= 0.1
    assert query.index == 0


def test_a_storm_without_change_is_slowed_to_four_a_second():
    query, now, answers = BlockingQuery(0.0), 0.0, 0
    while now < 10:
        answers += 1
        now += 0.001 + query.answered(answers, changed=False, now=now)
    assert 16 + 4 * 10 - 2 <= answers <= 16 + 4 * 10 + 2


def test_a_change_in_a_storm_is_seen_within_a_quarter_second():
    query = BlockingQuery(0.0)
    pauses = [query.answered(n, changed=False, now=0.0) for n in range(1, 18)]
    assert pauses[:16] == [0.0] * 16
    assert pauses[16] == pytest.approx(0.25)


def test_a_watch_at_rest_never_pauses():
    query = BlockingQuery(0.0)
    assert all(query.answered(5, changed=False, now=30.0 * n) == 0 for n in range(1, 1000))


def test_listening_outlasts_the_servers_jitter():
    assert listen_for(MAX_WAIT, 5.0) == 240 + 15 + 5
    assert listen_for(0.0, 5.0) == 5.0


def test_pauses_double_up_to_the_cap_and_reset():
    back_off, top = BackOff(), [0.0] * 12
    for seed in range(300):
        rng = random.Random(seed)
        back_off.succeeded()
        top = [max(old, back_off.failed(rng)) for old in top]
    for n, longest in enumerate(top):
        ceiling = min(10.0, 0.1 * 2**n)
        assert 0.9 * ceiling < longest <= ceiling


steps = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(-5, 50)), st.booleans(), st.floats(0, 100)), min_size=1, max_size=100
)


@given(steps, st.integers())
def test_invariant(script, seed):
    query, now, rng = BlockingQuery(0.0), 0.0, random.Random(seed)
    for index, changed, passed in script:
        now += passed
        before = query.index
        if index is None:
            pause = query.failed(rng)
            assert 0.01 <= pause <= 10
            assert query.index == 0
            continue
        pause = query.answered(index, changed=changed, now=now)
        assert 0 <= pause <= 0.25 * len(script)
        assert not (changed and pause)
        assert query.index == (max(1, index) if max(1, index) >= before else 0)
        now += pause

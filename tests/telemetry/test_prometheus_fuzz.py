"""Invariant: merging what workers wrote is writing what one process would have counted, whatever the labels hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.telemetry import catalogue
from meshsdk.telemetry.instruments import Counter, Family, Histogram
from meshsdk.telemetry.prometheus import expose, merge

pytestmark = pytest.mark.no_cover  # covered by the unit tests; tracing would only slow it down

labels = st.tuples(st.text(max_size=8), st.text('\\"\n{},= \r\x85', max_size=5))
durations = st.integers(0, 100)  # whole seconds, so that sums do not depend on their order
counts = st.lists(st.tuples(labels, durations), max_size=12)


def counted(pairs: list[tuple[tuple[str, str], int]]) -> list[Family]:
    refused, calls = Counter(catalogue.CALLS_REFUSED), Histogram(catalogue.CALL_DURATION)
    for (service, flag), seconds in pairs:
        refused.add((service, flag), seconds)
        calls.observe((service, flag, "", ""), seconds)
    return [refused.family(), calls.family()]


@given(st.lists(counts, min_size=1, max_size=4))
def test_merge(workers: list[list[tuple[tuple[str, str], int]]]):
    together = expose(counted([pair for worker in workers for pair in worker]))
    assert merge([expose(counted(worker)) for worker in workers]) == together


@given(counts)
def test_merging_one_changes_nothing(pairs: list[tuple[tuple[str, str], int]]):
    text = expose(counted(pairs))
    assert merge([text]) == text

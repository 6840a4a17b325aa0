"""Durations in text and in seconds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsdk.policy.durations import duration_text, seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [("25ms", 0.025), ("1.5s", 1.5), ("5m", 300), ("1h", 3600), ("0.5h", 1800), ("0s", 0), ("0", 0), (0, 0), (0.0, 0)],
)
def test_seconds(text, value):
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "wrong", ["", "s", "5", "5 s", "-5s", "5S", "1m30s", "5d", "1e3s", "५s", "5s\n", False, None, []]
)
def test_what_is_no_duration(wrong):
    with pytest.raises(ValueError, match="number with one unit"):
        seconds(wrong)


@pytest.mark.parametrize(("number", "advice"), [(5, "write 5s"), (0.5, "write 0.5s")])
def test_a_number_without_a_unit_is_told_which_one(number, advice):
    with pytest.raises(ValueError, match=advice):
        seconds(number)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0s"), (0.025, "25ms"), (1.5, "1.5s"), (5, "5s"), (60, "1m"), (90, "90s"), (5400, "90m"), (3600, "1h"),
        (0.0005, "0.5ms"), (0.25, "250ms"), (61.5, "61.5s"),
    ],
)  # fmt: skip
def test_text(value, text):
    assert duration_text(value) == text


@given(st.integers(1, 999_999_999), st.sampled_from(["ms", "s", "m", "h"]))
@settings(deadline=None)
def test_text_is_read_back(number, unit):
    value = seconds(f"{number}{unit}")
    assert seconds(duration_text(value)) == pytest.approx(value, rel=1e-8)

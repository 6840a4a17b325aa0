"""Deadlines in headers: exact forms, refusals, and that writing never promises more than there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.core.deadline import envoy_timeout, grpc_timeout, parse_envoy_timeout, parse_grpc_timeout


@pytest.mark.parametrize(
    ("seconds", "text"), [(5.0, b"5000"), (0.0015, b"1"), (0.0, b"1"), (-3.0, b"1"), (86400.0, b"86400000")]
)
def test_milliseconds_are_rounded_down_and_never_none(seconds: float, text: bytes) -> None:
    assert envoy_timeout(seconds) == text


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "+5", "5 ", "١", "9" * 16, b"\xff1", "5s"])
def test_what_is_no_number_of_milliseconds_is_refused(value: str | bytes) -> None:
    with pytest.raises(ValueError, match="write a whole number from 1 up"):
        parse_envoy_timeout(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, b"500000u"), (0.05, b"50000000n"), (99.0, b"99000000u"), (5e3, b"5000000m"), (2e5, b"200000S"),
     (3e9, b"50000000M"), (1e11, b"27777777H"), (1e30, b"99999999H"), (0.0, b"1n"), (-1.0, b"1n")],
)  # fmt: skip
def test_grpc_timeouts_use_the_finest_unit_that_fits(seconds: float, text: bytes) -> None:
    assert grpc_timeout(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1H", 3600.0), (b"2M", 120.0), ("3S", 3.0), ("4m", 0.004), ("5u", 5e-6), ("6n", 6e-9), ("0S", 0.0)],
)
def test_grpc_units(text: str | bytes, seconds: float) -> None:
    assert parse_grpc_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "S", "5", "5s", "123456789m", "-1S", "1.5S", "5 S", "５S"])
def test_what_grpc_does_not_allow_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="write up to 8 digits"):
        parse_grpc_timeout(value)


@given(st.floats(0.001, 1e9))
def test_no_header_promises_more_than_there_is(seconds: float) -> None:
    """Invariant: a written time reads back as no more than was written, and within a thousandth or 1 ms of it."""
    assert seconds - 0.0011 <= parse_envoy_timeout(envoy_timeout(seconds)) <= seconds
    assert seconds * 0.999 <= parse_grpc_timeout(grpc_timeout(seconds)) <= seconds * (1 + 1e-12)


@given(st.one_of(st.text(max_size=20), st.binary(max_size=20)))
def test_any_garbage_is_a_number_or_a_value_error(value: str | bytes) -> None:
    """Invariant: whatever the header holds, parsing gives seconds of at least 0 or raises ValueError, nothing else."""
    for parse in (parse_envoy_timeout, parse_grpc_timeout):
        try:
            assert parse(value) >= 0
        except ValueError:
            continue

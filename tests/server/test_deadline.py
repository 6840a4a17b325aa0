"""Invariant: any header value gives a timeout of 0 s or more, or is reported as junk; nothing raises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.server.deadline import ENVOY_HEADER, GRPC_HEADER, read_timeout


@pytest.mark.parametrize(
    ("header", "value", "seconds"),
    [
        (ENVOY_HEADER, b"250", 0.25),
        (ENVOY_HEADER, b" 1 ", 0.001),
        (ENVOY_HEADER, b"0", 0.0),
        (GRPC_HEADER, b"1H", 3600.0),
        (GRPC_HEADER, b"2M", 120.0),
        (GRPC_HEADER, b"3S", 3.0),
        (GRPC_HEADER, b"4m", 0.004),
        (GRPC_HEADER, b"5u", 0.000005),
        (GRPC_HEADER, b"6n", 0.000000006),
    ],
)
def test_values(header: bytes, value: bytes, seconds: float) -> None:
    timeout = read_timeout([(header, value)])
    assert timeout.seconds == pytest.approx(seconds)
    assert (timeout.header, timeout.junk) == (header.decode(), [])


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (GRPC_HEADER, b"123456789S"),
        (GRPC_HEADER, b"5"),
        (GRPC_HEADER, b"5s"),
        (ENVOY_HEADER, b"5S"),
        (ENVOY_HEADER, b"+5"),
    ],
)
def test_junk_is_reported(header: bytes, value: bytes) -> None:
    timeout = read_timeout([(header, value)])
    assert timeout.seconds is None
    assert timeout.junk == [f"{header.decode()}: {value!r}"]


def test_the_earlier_of_several_holds() -> None:
    timeout = read_timeout(
        [(ENVOY_HEADER, b"900"), (GRPC_HEADER, b"junk"), (GRPC_HEADER, b"100m"), (ENVOY_HEADER, b"500")]
    )
    assert timeout.seconds == pytest.approx(0.1)
    assert timeout.header == "grpc-timeout"
    assert len(timeout.junk) == 1


@given(st.lists(st.tuples(st.sampled_from([ENVOY_HEADER, GRPC_HEADER]), st.binary(max_size=60)), max_size=4))
def test_anything(values: list[tuple[bytes, bytes]]) -> None:
    timeout = read_timeout(values)
    assert timeout.seconds is None or timeout.seconds >= 0
    assert (timeout.seconds is None) == (len(timeout.junk) == len(values))

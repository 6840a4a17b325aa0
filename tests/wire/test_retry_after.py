"""Retry-After in both forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.wire.retry_after import retry_after

DATE = (b"Date", b"Wed, 21 Oct 2026 07:28:00 GMT")


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ([], None),
        ([(b"Retry-After", b"3")], 3.0),
        ([(b"RETRY-AFTER", b" 0 ")], 0.0),
        ([(b"retry-after", b"-1")], None),
        ([(b"retry-after", b"1.5")], None),
        ([(b"retry-after", b"soon")], None),
        ([(b"retry-after", b"")], None),
        ([(b"retry-after", b"Wed, 21 Oct 2026 07:28:30 GMT"), DATE], 30.0),
        ([(b"retry-after", b"Wed, 21 Oct 2026 07:27:00 GMT"), DATE], 0.0),
        ([(b"retry-after", b"Wed, 21 Oct 2026 07:28:30 GMT")], None),
        ([(b"retry-after", b"Wed, 21 Oct 2026 07:28:30 GMT"), (b"date", b"yesterday")], None),
    ],
)
def test_both_forms(fields: list[tuple[bytes, bytes]], seconds: float | None) -> None:
    assert retry_after(fields) == seconds


# Invariant: any bytes give None or a number that is not negative.
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes(value: bytes, date: bytes) -> None:
    seconds = retry_after([(b"retry-after", value), (b"date", date)])
    assert seconds is None or seconds >= 0

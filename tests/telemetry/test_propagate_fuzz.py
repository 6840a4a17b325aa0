"""Invariant: whatever comes in, reading never raises, and what is sent on is valid and reads back as the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.telemetry.propagate import (
    extract,
    format_traceparent,
    format_tracestate,
    parse_traceparent,
    parse_tracestate,
    trim_baggage,
)

pytestmark = pytest.mark.no_cover  # covered by the unit tests; tracing would only slow it down

hexadecimal = st.text("0123456789abcdef", min_size=1, max_size=34)
near_traceparents = st.builds("-".join, st.lists(hexadecimal | st.sampled_from(["00", "ff", "01"]), max_size=6))
exact_traceparents = st.from_regex(
    r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z0-9]{0,5})?", fullmatch=True
)
names = st.sampled_from([b"traceparent", b"TRACESTATE", b"tracestate", b"baggage", b"Baggage"]) | st.binary(max_size=12)
pieces = st.sampled_from([b",", b"=", b";", b"a", b"Z", b" ", b"\t", b"@", b"\xff", b"\x00", b"k=v", b"k=v;p=q"])
values = (
    st.binary(max_size=60) | st.builds(b"".join, st.lists(pieces, max_size=80)) | exact_traceparents.map(str.encode)
)


@given(near_traceparents | exact_traceparents | st.text())
def test_traceparent(text: str):
    parent = parse_traceparent(text)
    if parent is not None:
        assert format_traceparent(parent) == text.strip(" \t")
        assert parent.version != 255
        assert int(parent.trace_id, 16)
        assert int(parent.parent_id, 16)


@given(st.text(",=ab1@ _-*/é\t", max_size=60))
def test_tracestate(text: str):
    members = parse_tracestate(text)
    if members is not None:
        assert parse_tracestate(format_tracestate(members)) == members
        assert len(dict(members)) == len(members) <= 32


@given(st.text(',;=ab %"é\t', max_size=200))
def test_baggage(text: str):
    kept = trim_baggage(text)
    assert trim_baggage(kept) == kept
    assert kept.isascii()


@given(st.lists(st.tuples(names, values), max_size=8))
def test_extract(headers: list[tuple[bytes, bytes]]):
    context = extract(headers)
    if context is not None:
        again = extract(context.headers)
        assert again == context
        assert again is not None
        assert again.headers == context.headers
        assert all(b"\n" not in value and b"\r" not in value for _, value in context.headers)

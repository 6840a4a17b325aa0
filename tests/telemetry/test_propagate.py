"""W3C trace context and baggage, rule by rule."""

from __future__ import annotations

import pytest

from meshsdk.telemetry.propagate import (
    TraceParent,
    extract,
    format_traceparent,
    format_tracestate,
    parse_traceparent,
    parse_tracestate,
    trim_baggage,
)

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{ID}-{SPAN}-01"


def test_traceparent_is_read():
    assert parse_traceparent(PARENT) == TraceParent(ID, SPAN, 1)
    assert parse_traceparent(f" {PARENT}\t") == TraceParent(ID, SPAN, 1)


@pytest.mark.parametrize("flags", ["00", "01", "02", "03", "ff"])
def test_flags_are_kept_as_they_came(flags: str):
    assert parse_traceparent(f"00-{ID}-{SPAN}-{flags}") == TraceParent(ID, SPAN, int(flags, 16))


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"ff-{ID}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID.upper()}-{SPAN}-01",
        f"00-{ID}-{SPAN.upper()}-01",
        f"00-{ID}-{SPAN}-0A",
        f"00-{ID}-{SPAN}-01-more",
        f"00-{ID}-{SPAN}-01-",
        f"00-{ID}-{SPAN}-1",
        f"0-{ID}-{SPAN}-01",
        f"00-{ID[:-1]}-{SPAN}-01",
        f"00-{ID}{SPAN}-01",
        f"01-{ID}-{SPAN}-01more",
        f"00-{ID[:-1]}g-{SPAN}-01",
        f"{PARENT},{PARENT}",
        f"{PARENT}\n",
        f"0٠-{ID}-{SPAN}-01",
    ],
)
def test_bad_traceparent_is_none(text: str):
    assert parse_traceparent(text) is None


@pytest.mark.parametrize("text", [f"01-{ID}-{SPAN}-01", f"cc-{ID}-{SPAN}-09-what-comes-later", f"01-{ID}-{SPAN}-01-"])
def test_later_versions_go_through_as_they_came(text: str):
    parent = parse_traceparent(text)
    assert parent is not None
    assert format_traceparent(parent) == text


def test_tracestate_keeps_order_and_drops_empty_members():
    members = parse_tracestate("rojo=00f067aa0ba902b7, ,congo=t61rcWkgMzE,,1a@b=x y")
    assert members == (("rojo", "00f067aa0ba902b7"), ("congo", "t61rcWkgMzE"), ("1a@b", "x y"))
    assert format_tracestate(members) == "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE,1a@b=x y"


@pytest.mark.parametrize(
    "text",
    ["foo", "foo=", "=1", "Foo=1", "foo=1=2", "foo=1,foo=2", "foo =1", "foo@@=é", "a" * 257 + "=1", "a=" + "b" * 257],
)
def test_bad_tracestate_is_none_as_a_whole(text: str):
    assert parse_tracestate(text) is None


def test_tracestate_has_at_most_32_members():
    assert len(parse_tracestate(",".join(f"k{n}=v" for n in range(32))) or ()) == 32
    assert parse_tracestate(",".join(f"k{n}=v" for n in range(33))) is None


def test_good_baggage_is_untouched():
    text = "userId=alice,serverNode=DF%2028 , isProduction=false;ttl=3;secure"
    assert trim_baggage(text) == text


def test_bad_members_of_baggage_are_left_out():
    assert trim_baggage('a=1,b,"c"=2,d=x y,e=4') == "a=1,e=4"


def test_baggage_is_cut_at_64_members():
    assert trim_baggage(",".join(f"k{n}=v" for n in range(70))).split(",") == [f"k{n}=v" for n in range(64)]


def test_baggage_is_cut_at_8192_bytes_between_members():
    kept = trim_baggage(",".join(f"k{n}=" + "v" * 1000 for n in range(10)))
    assert kept.count(",") == 7
    assert len(kept) <= 8192
    assert all(len(member) > 1000 for member in kept.split(","))


def test_extract_takes_what_came_and_gives_it_back():
    headers = [
        (b"Host", b"x"),
        (b"TraceParent", PARENT.encode()),
        (b"tracestate", b"a=1"),
        (b"Tracestate", b"b=2"),
        (b"baggage", b"who=me"),
    ]
    context = extract(headers)
    assert context is not None
    assert context.headers == ((b"traceparent", PARENT.encode()), (b"tracestate", b"a=1,b=2"), (b"baggage", b"who=me"))
    assert context.trace_id == ID


def test_extract_without_trace_headers_is_none():
    assert extract([(b"host", b"x"), (b"upgrade", b"traceparent"), (b"authorization", b"baggage")]) is None


def test_two_traceparents_are_none_and_take_the_tracestate_along():
    pair = (b"traceparent", PARENT.encode())
    assert extract([pair, pair, (b"tracestate", b"a=1")]) is None


def test_bad_tracestate_does_not_spoil_the_traceparent():
    context = extract([(b"traceparent", PARENT.encode()), (b"tracestate", b"a=1,a=2")])
    assert context is not None
    assert context.headers == ((b"traceparent", PARENT.encode()),)


def test_baggage_stands_on_its_own():
    context = extract([(b"traceparent", b"nonsense"), (b"tracestate", b"a=1"), (b"baggage", b"who=me")])
    assert context is not None
    assert context.headers == ((b"baggage", b"who=me"),)
    assert context.trace_id == ""

"""What is written for which request, what is refused in which words, and that servers read what was written."""

from __future__ import annotations

import string
from typing import Any

import h11
import pytest
from httptools import HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsdk.wire.engine import InvalidRequest
from meshsdk.wire.http1 import Framing, Head, write_head

HOST = (b"Host", b"payments")


def head(*fields: tuple[bytes, bytes], method: str = "GET", target: bytes = b"/", length: int | None = 0) -> Head:
    return write_head(method, target, [HOST, *fields], length)


def refused(*fields: tuple[bytes, bytes], **options: Any) -> str:
    with pytest.raises(InvalidRequest) as raised:
        head(*fields, **options)
    return str(raised.value)


class TestWritten:
    def test_without_body(self) -> None:
        assert head((b"accept", b"*/*"), target=b"/a?b=c") == Head(
            b"GET /a?b=c HTTP/1.1\r\nHost: payments\r\naccept: */*\r\n\r\n", 0, False
        )

    def test_known_length(self) -> None:
        assert head(method="POST", length=5) == Head(
            b"POST / HTTP/1.1\r\nHost: payments\r\nContent-Length: 5\r\n\r\n", 5, False
        )

    def test_unknown_length(self) -> None:
        assert head(method="PUT", length=None) == Head(
            b"PUT / HTTP/1.1\r\nHost: payments\r\nTransfer-Encoding: chunked\r\n\r\n", Framing.CHUNKED, False
        )

    @pytest.mark.parametrize("length", [5, None])
    def test_own_length(self, length: int | None) -> None:
        assert head((b"content-LENGTH", b"05"), method="POST", length=length) == Head(
            b"POST / HTTP/1.1\r\nHost: payments\r\ncontent-LENGTH: 05\r\n\r\n", 5, False
        )

    @pytest.mark.parametrize("length", [0, 5, None])
    def test_own_coding(self, length: int | None) -> None:
        assert head((b"transfer-encoding", b"Chunked"), method="POST", length=length) == Head(
            b"POST / HTTP/1.1\r\nHost: payments\r\ntransfer-encoding: Chunked\r\n\r\n", Framing.CHUNKED, False
        )

    def test_own_length_of_nothing(self) -> None:
        written = head((b"Content-Length", b"0"), method="POST")
        assert written.data.count(b"Content-Length") == 1
        assert written.length == 0

    @pytest.mark.parametrize(
        ("value", "length", "expects"),
        [(b"100-continue", 5, True), (b"100-Continue", None, True), (b"100-continue", 0, False), (b"other", 5, False)],
    )
    def test_expect(self, value: bytes, length: int | None, expects: bool) -> None:
        assert head((b"Expect", value), method="POST", length=length).expects is expects

    @pytest.mark.parametrize("value", [b"", b" x ", b"a\tb", b"\xff\x80", b'"quoted"', b"x" * 70_000])
    def test_values_go_as_they_are(self, value: bytes) -> None:
        assert head((b"A", value)).data == b"GET / HTTP/1.1\r\nHost: payments\r\nA: %b\r\n\r\n" % value

    @pytest.mark.parametrize("method", ["GET", "M-SEARCH", "get", "X" * 40, "!#$%&'*+-.^_`|~09az"])
    def test_methods_go_as_they_are(self, method: str) -> None:
        for _ in range(2):  # known the second time
            assert head(method=method).data.startswith(method.encode() + b" / HTTP/1.1\r\n")

    @pytest.mark.parametrize("target", [b"*", b"/", b"/%20?a=b#c", b"http://x/y", b'/"<>[]^`{|}'])
    def test_targets_go_as_they_are(self, target: bytes) -> None:
        assert head(target=target).data.startswith(b"GET " + target + b" HTTP/1.1\r\n")

    def test_repeated_fields(self) -> None:
        assert head((b"A", b"1"), (b"a", b"2")).data.endswith(b"A: 1\r\na: 2\r\n\r\n")

    def test_more_names_than_are_remembered(self) -> None:
        for number in range(1200):
            name = b"X-%d" % number
            assert head((name, b"v"), method=f"M{number}").data.endswith(name + b": v\r\n\r\n")
        assert refused((b"X-1199 ", b"v")) == "the header name b'X-1199 ' is no token (RFC 9110, 5.6.2)"
        assert "more than one" in refused((b"CONTENT-length", b"0"), (b"content-LENGth", b"0"))


class TestRefused:
    @pytest.mark.parametrize(
        "value", [b"a\r\nB: c", b"a\nB: c", b"a\rb", b"\r\n\r\n", b"a\0", b"\x7f", b"\x0b", b"\x1f"]
    )
    @pytest.mark.parametrize("name", [b"A", b"Cookie", b"Expect"])
    def test_injection_by_values(self, name: bytes, value: bytes) -> None:
        words = refused((name, value))
        assert words == f"the header {name.decode()} has a control character in its value: {value!r}"

    def test_injection_by_host(self) -> None:
        with pytest.raises(InvalidRequest, match="the header Host has a control character"):
            write_head("GET", b"/", [(b"Host", b"a\r\nX: y")], 0)

    @pytest.mark.parametrize("name", [b"", b"A:", b"A B", b" A", b"A ", b"A\r\nB", b"A\n", b"\xc3\xa9", b"A\0", b"(A)"])
    def test_names(self, name: bytes) -> None:
        for _ in range(2):  # what is refused is not remembered
            assert refused((name, b"v")) == f"the header name {name!r} is no token (RFC 9110, 5.6.2)"

    @pytest.mark.parametrize("method", ["", "G ET", "GET ", "GET\r\nX:", "GÉT", "GET\n", "GET\0", "a/b"])
    def test_methods(self, method: str) -> None:
        for _ in range(2):
            assert refused(method=method) == f"the method {method!r} is no token (RFC 9110, 5.6.2)"

    def test_connect(self) -> None:
        for _ in range(2):
            assert "CONNECT asks a proxy for a tunnel" in refused(method="CONNECT")

    @pytest.mark.parametrize(
        "target",
        [b"", b" ", b"/a b", b"/a\tb", b"/\r\nX: y", b"/\n", b"/\r", b"/\0", b"/\x7f", b"/\xc3\xa9", b"/ HTTP/1.1"],
    )
    def test_targets(self, target: bytes) -> None:
        assert refused(target=target) == (
            f"the target {target!r} is empty or has spaces, control or non-ASCII characters; encode them as %XX"
        )

    @pytest.mark.parametrize(("hosts", "count"), [([], 0), ([HOST, HOST], 2), ([HOST, (b"hOST", b"b"), HOST], 3)])
    def test_hosts(self, hosts: list[tuple[bytes, bytes]], count: int) -> None:
        with pytest.raises(InvalidRequest, match=f"^the request has {count} Host headers; it needs one$"):
            write_head("GET", b"/", hosts, 0)

    @pytest.mark.parametrize("coding", [b"chunked", b"gzip"])
    def test_length_and_coding(self, coding: bytes) -> None:
        fields = [(b"Content-Length", b"5"), (b"Transfer-Encoding", coding)]
        for pair in (fields, fields[::-1]):
            assert refused(*pair, length=5) == "the request has Content-Length and Transfer-Encoding; leave one out"

    @pytest.mark.parametrize("name", [b"Content-Length", b"transfer-encoding"])
    def test_twice(self, name: bytes) -> None:
        value = b"5" if name == b"Content-Length" else b"chunked"
        assert refused((name, value), (name, value)) == f"the request has more than one {name.decode()} header"

    @pytest.mark.parametrize("coding", [b"gzip", b"gzip, chunked", b"chunked, chunked", b"", b" chunked", b"chunked\t"])
    def test_codings(self, coding: bytes) -> None:
        words = refused((b"Transfer-Encoding", coding), length=None)
        assert words == f"Transfer-Encoding: {coding!r} cannot be sent; only `chunked` can"

    @pytest.mark.parametrize(
        "said", [b"", b"-1", b"+1", b"1 ", b"1_0", b"0x1", b"1, 1", b"1" * 21, b"9" * 5000, b"\xb2"]
    )
    def test_lengths(self, said: bytes) -> None:
        words = refused((b"Content-Length", said), length=None)
        assert words == f"Content-Length: {said[:80]!r} is not a number of bytes"

    @pytest.mark.parametrize(("said", "length"), [(b"5", 4), (b"0", 4), (b"5", 0)])
    def test_another_length(self, said: bytes, length: int) -> None:
        words = refused((b"Content-Length", said), length=length)
        assert words == f"Content-Length is {int(said)} and the body has {length} bytes"


# --- servers read what was written --------------------------------------------------------------------

TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
RESERVED = {b"host", b"content-length", b"transfer-encoding", b"expect", b"connection", b"upgrade", b"proxy-connection"}
VISIBLE = [*range(0x21, 0x7F), *range(0x80, 0x100)]

# llhttp knows methods by name only.
methods = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "PROPFIND", "M-SEARCH"])
targets = st.text(alphabet=[chr(code) for code in range(0x21, 0x7F)], max_size=40).map(
    lambda path: b"/" + path.encode()
)
names = (
    st.text(alphabet=TOKEN, min_size=1, max_size=20).map(str.encode).filter(lambda name: name.lower() not in RESERVED)
)
values = st.lists(st.sampled_from([*VISIBLE, 0x20, 0x09]), max_size=30).map(bytes)
fields = st.lists(st.tuples(names, values), max_size=8)
bodies = st.one_of(st.just(b""), st.binary(max_size=200))
framings = st.sampled_from(["length", "chunks", "own length", "own coding"])


def written(method: str, target: bytes, given_: list[tuple[bytes, bytes]], body: bytes, framing: str) -> bytes:
    """The bytes of the whole request, its body in two chunks if in any."""
    length = None if framing == "chunks" else len(body)
    if framing == "own length":
        given_ = [*given_, (b"content-length", b"%d" % len(body))]
    elif framing == "own coding":
        given_ = [(b"Transfer-Encoding", b"chunked"), *given_]
    out = write_head(method, target, [HOST, *given_], length)
    if out.length != Framing.CHUNKED:
        assert out.length == len(body)
        return out.data + body
    half = len(body) // 2
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:half], body[half:]) if piece]
    return out.data + b"".join(chunks) + b"0\r\n\r\n"


def by_h11(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]:
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(data)
    request = server.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert server.trailing_data == (b"", False)
    return request.method, request.target, request.headers.raw_items(), body


class Parsed:
    """What httptools calls while it reads a request."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = 0

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.strip(b" \t")))

    def on_body(self, piece: bytes) -> None:
        self.body += piece

    def on_message_complete(self) -> None:
        self.complete += 1


def by_httptools(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]:
    parsed = Parsed()
    parser = HttpRequestParser(parsed)
    parser.feed_data(data)
    assert parsed.complete == 1
    return parser.get_method(), parsed.target, parsed.fields, parsed.body


@pytest.mark.no_cover  # covered above; tracing would only slow it down
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(method=methods, target=targets, given_=fields, body=bodies, framing=framings)
def test_servers_read_the_request_that_was_written(
    method: str, target: bytes, given_: list[tuple[bytes, bytes]], body: bytes, framing: str
) -> None:
    data = written(method, target, given_, body, framing)
    expected = [HOST, *((name, value.strip(b" \t")) for name, value in given_)]
    for parser in (by_h11, by_httptools):
        got_method, got_target, got_fields, got_body = parser(data)
        plain = [item for item in got_fields if item[0].lower() not in RESERVED - {b"host"}]
        assert (got_method, got_target, plain, got_body) == (method.encode(), target, expected, body)


@pytest.mark.no_cover  # covered above; tracing would only slow it down
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    method=st.text(max_size=8),
    target=st.binary(max_size=20),
    given_=st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=20)), max_size=4),
    length=st.one_of(st.none(), st.integers(0, 100)),
)
def test_whatever_is_given_one_head_is_written_or_none(
    method: str, target: bytes, given_: list[tuple[bytes, bytes]], length: int | None
) -> None:
    try:
        out = write_head(method, target, [HOST, *given_], length)
    except InvalidRequest:
        return
    assert out.data.index(b"\r\n\r\n") == len(out.data) - 4
    added = out.data.count(b"\r\n") - 3 - len(given_)
    assert 0 <= added <= 1  # what says how long the body is
    assert out.data.startswith(method.encode() + b" " + target + b" HTTP/1.1\r\nHost: payments\r\n")

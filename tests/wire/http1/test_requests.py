"""What the reader says of requests that are in order, what it holds back, and what its limits refuse."""

from __future__ import annotations

import gc
import string
import sys
import time
import weakref
from collections.abc import Callable
from itertools import count

import pytest

from meshsdk.wire.http1 import Asked, Framing, Refused, RequestLimits, RequestReader
from meshsdk.wire.http1.faults import METHODS
from tests.wire.http1.asking import Heard, ask, bytewise, whole_and_bytewise, words

GET = b"GET /charge?id=1 HTTP/1.1\r\nHost: pay\r\n\r\n"
POST = b"POST /charge HTTP/1.1\r\nHost: pay\r\nContent-Length: 5\r\n\r\nhello"
HEAD = b"POST /charge HTTP/1.1\r\nHost: pay\r\n"
CODED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKED = CODED + b"5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
SWITCH = b"GET /chat HTTP/1.1\r\nHost: pay\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
TUNNEL = b"CONNECT pay:443 HTTP/1.1\r\nHost: pay:443\r\n\r\n"


def read(*pieces: bytes, limits: RequestLimits | None = None) -> RequestReader:
    reader = RequestReader(limits) if limits else RequestReader()
    for piece in pieces:
        reader.feed(piece)
    return reader


# --- one request --------------------------------------------------------------------------------------


def test_a_request_without_a_body() -> None:
    asked = whole_and_bytewise(
        b"GET /a?b HTTP/1.1\r\nhost: Pay:80\r\nACCEPT:  */* \r\nX-Empty:\r\naccept: a\r\n\r\n"
    ).only
    assert (asked.method, asked.target, asked.version) == (b"GET", b"/a?b", "1.1")
    assert asked.fields == [(b"host", b"Pay:80"), (b"ACCEPT", b"*/*"), (b"X-Empty", b""), (b"accept", b"a")]
    assert (asked.host, asked.length, asked.body, asked.complete) == (b"Pay:80", 0, b"", True)
    assert (asked.keeps_alive, asked.expects, asked.upgrade, asked.trailers) == (True, False, b"", [])


def test_a_body_with_its_length() -> None:
    asked = whole_and_bytewise(POST).only
    assert (asked.length, asked.body, asked.complete) == (5, b"hello", True)
    assert not ask([POST[:-1]]).only.complete
    assert ask([POST[:-1]]).only.body == b"hell"


def test_a_body_in_chunks() -> None:
    asked = whole_and_bytewise(CHUNKED).only
    assert (asked.length, asked.body, asked.trailers) == (Framing.CHUNKED, b"hello", [(b"X-Sum", b"1")])
    assert asked.complete
    for end in range(len(CODED), len(CHUNKED)):
        assert not ask([CHUNKED[:end]]).only.complete


@pytest.mark.parametrize(
    "name", ["Authorization", "content-type", "If-Match", "X-Forwarded-For", "cookie", "X-Envoy-A", "TE"]
)
def test_unsafe_trailers_are_left_out(name: str) -> None:
    data = CODED + b"0\r\nX-Sum: 1\r\n%b: a\r\nContent-Digest:  b \r\n\r\n" % name.encode()
    assert whole_and_bytewise(data).only.trailers == [(b"X-Sum", b"1"), (b"Content-Digest", b"b")]


@pytest.mark.parametrize(
    ("line", "host"),
    [
        (b"GET http://other:81/a HTTP/1.1", b"other:81"),
        (b"GET HTTPS://[::1]?a HTTP/1.1", b"[::1]"),
        (b"OPTIONS http://other HTTP/1.1", b"other"),
        (b"OPTIONS * HTTP/1.1", b"pay"),
        (b"CONNECT other:443 HTTP/1.1", b"other:443"),
        (b"CONNECT [2001:db8::1]:443 HTTP/1.0", b"[2001:db8::1]:443"),
        (b"GET //other/a HTTP/1.1", b"pay"),
        (b"GET /http://other/ HTTP/1.1", b"pay"),
    ],
)
def test_the_authority_in_the_target_outranks_host(line: bytes, host: bytes) -> None:
    asked = whole_and_bytewise(line + b"\r\nHost: pay\r\n\r\n").only
    assert asked.host == host
    assert asked.target == line.split(b" ")[1]


def test_only_http_1_0_may_leave_host_out() -> None:
    assert whole_and_bytewise(b"GET / HTTP/1.0\r\n\r\n").only.host is None
    assert whole_and_bytewise(b"GET http://pay/ HTTP/1.0\r\n\r\n").only.host == b"pay"


@pytest.mark.parametrize(
    ("version", "options", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: CLOSE\r\n", False),
        (b"1.1", b"Connection: te , close\r\n", False),
        (b"1.1", b"Connection: te\r\nConnection: close\r\n", False),
        (b"1.1", b"Connection: keep-alive, close\r\n", False),
        (b"1.1", b"Connection: keep-alive\r\n", True),
        (b"1.1", b"Connection: closed\r\n", True),
        (b"1.1", b"Proxy-Connection: close\r\n", True),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
        (b"1.0", b"Connection: Keep-Alive, te\r\n", True),
        (b"1.0", b"Connection: keep-alive\r\nConnection: close\r\n", False),
        (b"1.0", b"Proxy-Connection: keep-alive\r\n", False),
    ],
)
def test_what_is_read_after_it(version: bytes, options: bytes, kept: bool) -> None:
    """RFC 9112, 9.3; and nothing is read behind a close, not even to refuse it."""
    data = b"GET / HTTP/%b\r\nHost: pay\r\n%b\r\n" % (version, options)
    assert whole_and_bytewise(data).only.keeps_alive == kept
    assert len(whole_and_bytewise(data + GET).requests) == 1 + kept
    assert bool(whole_and_bytewise(data + b"\0").status) == kept


@pytest.mark.parametrize(
    ("start", "expects"),
    [
        (HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", True),
        (CODED[:-2] + b"expect: 100-Continue\r\nExpect: 100-continue\r\n\r\n", True),
        (HEAD + b"Content-Length: 0\r\nExpect: 100-continue\r\n\r\n", False),
        (HEAD + b"Expect: 100-continue\r\n\r\n", False),
        (HEAD.replace(b"1.1", b"1.0") + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", False),
    ],
)
def test_expect(start: bytes, expects: bool) -> None:
    assert whole_and_bytewise(start).only.expects == expects


def test_every_method_is_read_as_itself() -> None:
    for method in METHODS - {b"CONNECT"}:
        assert whole_and_bytewise(GET.replace(b"GET", method)).only.method == method


@pytest.mark.parametrize("byte", [byte for byte in range(256) if not 0x21 <= byte <= 0x7E or byte in b"#%"])
def test_what_no_target_has_in_it(byte: int) -> None:
    heard = whole_and_bytewise(GET.replace(b"?id=1", b"a" + bytes([byte]) + b"b"))
    assert (heard.status, heard.requests) == (400, [])


def test_what_every_target_may_have_in_it() -> None:
    target = b"/" + bytes(byte for byte in range(0x21, 0x7F) if byte not in b"#%")
    assert whole_and_bytewise(GET.replace(b"/charge?id=1", target)).only.target == target


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_in_a_value(byte: int) -> None:
    heard = whole_and_bytewise(GET[:-2] + b"X: a" + bytes([byte]) + b"b\r\n\r\n")
    if byte == 0x09 or (byte >= 0x20 and byte != 0x7F):
        assert heard.only.fields[-1] == (b"X", b"a" + bytes([byte]) + b"b")
    else:
        assert (heard.status, heard.requests) == (400, [])


@pytest.mark.parametrize("byte", range(256))
def test_each_byte_in_a_name(byte: int) -> None:
    heard = whole_and_bytewise(GET[:-2] + b"X" + bytes([byte]) + b"Y: a\r\n\r\n")
    if chr(byte) in string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~":
        assert heard.only.fields[-1] == (b"X" + bytes([byte]) + b"Y", b"a")
    elif byte == 0x3A:
        assert heard.only.fields[-1] == (b"X", b"Y: a")
    else:
        assert (heard.status, heard.requests) == (400, [])


@pytest.mark.interpreted
def test_own_objects_are_filled() -> None:
    class Exchange(Asked):
        __slots__ = ("tried",)

        def __init__(self) -> None:
            super().__init__()
            self.tried = 0

    reader = RequestReader(make=Exchange)
    reader.feed(GET)
    (exchange,) = reader.queue
    assert isinstance(exchange, Exchange)
    assert (exchange.tried, exchange.headed, exchange.host) == (0, True, b"pay")


# --- several, in any pieces ---------------------------------------------------------------------------


def test_pipelined_requests() -> None:
    heard = whole_and_bytewise(GET + POST + b"\r\n" + CHUNKED + GET + POST[:-2])
    assert [request.body for request in heard.requests] == [b"", b"hello", b"hello", b"", b"hel"]
    assert [request.complete for request in heard.requests] == [True, True, True, True, False]
    assert heard.buffered == 13


def test_a_head_in_two_pieces_with_a_request_behind() -> None:
    data = GET + POST
    for at in range(len(data)):
        assert ask([data[:at], data[at:]]) == ask([data])


def test_mid_head_tells_of_a_head_that_has_begun() -> None:
    reader = RequestReader()
    told = []
    for piece in bytewise(b"\r\n" + POST + GET):
        reader.feed(piece)
        told.append(reader.mid_head)
    head = POST.index(b"hello")
    assert told == [True, False] + [True] * (head - 1) + [False] + [False] * 5 + [True] * (len(GET) - 1) + [False]


@pytest.mark.interpreted
def test_a_large_body_is_not_copied() -> None:
    reader = read(HEAD + b"Content-Length: 200000\r\n\r\n")
    pieces = [bytes(100_000), bytes(100_000)]
    for piece in pieces:
        reader.feed(piece)
    assert [id(piece) for piece in reader.queue[0].pieces] == [id(piece) for piece in pieces]
    assert (reader.buffered, reader.queue[0].complete) == (200_000, True)


def test_what_was_taken_is_not_given_again() -> None:
    reader = read(CODED + b"5\r\nhel")
    asked = reader.queue[0]
    assert (b"".join(asked.pieces), reader.buffered) == (b"hel", 3)
    asked.pieces.clear()
    reader.buffered = 0
    reader.feed(b"lo\r\n0\r\n\r\n" + GET)
    assert (b"".join(asked.pieces), reader.buffered, asked.complete, len(reader.queue)) == (b"lo", 2, True, 2)


def test_after_a_refusal_nothing_is_read() -> None:
    reader = read(GET)
    with pytest.raises(Refused) as first:
        reader.feed(GET + b"GET / HTTP/3.0\r\n\r\n" + GET)
    with pytest.raises(Refused) as second:
        reader.feed(GET)
    assert first.value is second.value
    assert len(reader.queue) == 2


def test_what_came_of_a_body_before_its_fault_stands() -> None:
    reader = read()
    with pytest.raises(Refused):
        reader.feed(CODED + b"2\r\nok\r\nno\r\n")
    assert (reader.queue[0].pieces, reader.queue[0].complete, reader.buffered) == ([b"ok"], False, 2)


@pytest.mark.interpreted
def test_a_reader_is_gone_with_its_connection() -> None:
    """Without the garbage collector: thousands of connections a second come and go."""

    class Reader(RequestReader):
        __slots__ = ("__weakref__",)

    reader = Reader()
    reader.feed(GET + POST + b"GET")
    gone = weakref.ref(reader)
    gc.disable()
    try:
        del reader
        assert gone() is None
    finally:
        gc.enable()


# --- held back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [SWITCH, TUNNEL, SWITCH[:-2] + b"Content-Length: 0\r\n\r\n"])
def test_bytes_behind_an_upgrade_are_nobodys_yet(start: bytes) -> None:
    surplus = b"\0\1" + GET
    heard = whole_and_bytewise(start + surplus)
    assert (heard.surplus, heard.status) == (surplus, 0)
    assert heard.only.complete
    assert heard.only.upgrade == (b"" if start is TUNNEL else b"websocket")


@pytest.mark.parametrize("start", [SWITCH, TUNNEL])
def test_a_declined_upgrade_goes_on(start: bytes) -> None:
    reader = read(start, GET[:9], GET[9:] + start, GET)
    assert len(reader.queue) == 1
    reader.queue.popleft()
    reader.resume()
    assert [asked.method for asked in reader.queue] == [b"GET", start.split(b" ")[0]]
    assert (reader.surplus, reader.held) == (GET, True)
    reader.queue.clear()
    reader.resume()
    reader.feed(GET)
    assert (len(reader.queue), reader.surplus, reader.held) == (2, b"", False)


@pytest.mark.parametrize("start", [SWITCH, TUNNEL])
def test_what_is_before_an_upgrade_does_not_decline_it(start: bytes) -> None:
    reader = read(GET + POST + start + GET)
    for left in (2, 1):
        reader.queue.popleft()
        reader.resume()
        assert (len(reader.queue), reader.surplus, reader.held) == (left, GET, True)


def test_a_declined_upgrade_may_have_been_the_last() -> None:
    reader = read(SWITCH.replace(b"keep-alive", b"close") + GET)
    reader.queue.clear()
    reader.resume()
    assert (len(reader.queue), reader.surplus) == (0, b"")


def test_what_was_held_back_may_be_refused() -> None:
    reader = read(SWITCH + b"\0")
    reader.queue.clear()
    with pytest.raises(Refused):
        reader.resume()


@pytest.mark.parametrize(
    "fields",
    [
        b"Upgrade: websocket\r\n",  # RFC 9110, 7.8: Connection has to say so
        b"Connection: te\r\nUpgrade: websocket\r\n",
        b"Connection: upgrade\r\n",
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket, H2C\r\n",
    ],
)
def test_what_is_no_upgrade(fields: bytes) -> None:
    heard = whole_and_bytewise(GET[:-2] + fields + b"\r\n" + GET)
    assert [request.upgrade for request in heard.requests] == [b"", b""]


def test_a_request_with_a_body_asks_for_no_upgrade() -> None:
    """Node would read its body as the other protocol."""
    first, second = whole_and_bytewise(SWITCH[:-2] + b"Content-Length: 5\r\n\r\nhello" + GET).requests
    assert (first.upgrade, first.body, second.target) == (b"", b"hello", b"/charge?id=1")


def test_http_1_0_cannot_upgrade() -> None:
    assert whole_and_bytewise(SWITCH.replace(b"1.1", b"1.0") + GET).surplus == b""


def test_a_full_queue_is_waited_for() -> None:
    reader = read(GET * 5 + GET[:5], limits=RequestLimits(pipelined=2))
    assert (len(reader.queue), reader.surplus) == (2, GET * 3 + GET[:5])
    reader.feed(GET[5:])
    reader.queue.popleft()
    reader.resume()
    assert (len(reader.queue), reader.surplus) == (2, GET * 3)
    done = 0
    while reader.queue:
        reader.queue.popleft()
        reader.resume()
        done += 1
    assert (done, reader.surplus) == (5, b"")


# --- limits -------------------------------------------------------------------------------------------

LEAST = RequestLimits(line=40, head=200, field=60, fields=4, framing=50, blank=1, pipelined=9)
START = b"GET / HTTP/1.1\r\nHost: a\r\n"


def within(data: bytes) -> Heard:
    heard = whole_and_bytewise(data, LEAST)
    assert not heard.status, heard
    assert all(request.complete for request in heard.requests)
    return heard


def beyond(data: bytes, status: int) -> None:
    heard = whole_and_bytewise(data, LEAST)
    assert (heard.status, heard.kind) == (status, "framing" if status == 400 else "size")


def test_the_request_line() -> None:
    within(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 26))
    beyond(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 27), 414)
    beyond(b"GET /%b" % (b"a" * 36), 414)  # before its end is here


def test_a_field() -> None:
    within(START + b"X: %b\r\n\r\n" % (b"a" * 57))
    beyond(START + b"X: %b\r\n\r\n" % (b"a" * 58), 431)
    beyond(START + b"X: %b" % (b"a" * 58), 431)


def test_the_number_of_fields() -> None:
    within(START + b"X: a\r\n" * 3 + b"\r\n")
    beyond(START + b"X: a\r\n" * 4 + b"\r\n", 431)
    beyond(START + b"X: a\r\n" * 4, 431)  # before its end is here


def test_a_head() -> None:
    line = b"X: %b\r\n"
    head = START + line % (b"a" * 55) * 2
    rest = 200 - len(head) - len(line % b"") - 2
    within(head + line % (b"a" * rest) + b"\r\n")
    beyond(head + line % (b"a" * (rest + 1)) + b"\r\n", 431)
    within(head + line % (b"a" * rest) + b"\r\n" + GET)


def test_empty_lines_first() -> None:
    within(b"\r\n" + GET + b"\r\n" + GET)
    assert whole_and_bytewise(b"\r\n\r\n" + GET, LEAST).status == 400


def test_chunk_extensions() -> None:
    """16 bytes for each chunk and twice the body are free, besides the limit."""
    within(CODED.replace(b"/charge", b"/") + b"0;%b\r\n\r\n" % (b"a" * 60))
    beyond(CODED.replace(b"/charge", b"/") + b"0;%b\r\n\r\n" % (b"a" * 63), 400)
    beyond(CODED.replace(b"/charge", b"/") + b"0;%b" % (b"a" * 65), 400)  # before its end is here
    beyond(CODED.replace(b"/charge", b"/") + b"1;%b\r\na\r\n" % (b"a" * 20) * 99, 400)


def test_many_small_chunks_are_no_fault() -> None:
    body = CODED.replace(b"/charge", b"/") + b"1\r\na\r\n" * 1000 + b"0\r\n\r\n"
    assert within(body).only.body == b"a" * 1000


def test_the_number_of_trailers() -> None:
    lines = CODED.replace(b"/charge", b"/") + b"0\r\n%b\r\n"
    within(lines % (b"a: b\r\n" * 4))
    beyond(lines % (b"a: b\r\n" * 5), 431)


def test_the_bytes_of_trailers() -> None:
    beyond(CODED.replace(b"/charge", b"/") + b"0\r\na: %b\r\n\r\n" % (b"b" * 80), 400)


def test_each_limit_is_named() -> None:
    assert "over 40 bytes" in words(b"GET /" + b"a" * 60, LEAST)
    assert "over 60 bytes" in words(START + b"X: " + b"a" * 60, LEAST)
    assert "line 3" in words(START + b"X: " + b"a" * 60, LEAST)
    assert "more than 4 fields" in words(START + b"X: a\r\n" * 9, LEAST)
    assert "over 200 bytes" in words(START + (b"X: %b\r\n" % (b"a" * 56)) * 3, LEAST)


# --- what it costs ------------------------------------------------------------------------------------

# By name how many of what there are, and how they come.
COSTLY: dict[str, tuple[int, Callable[[int], list[bytes]]]] = {
    "a head byte by byte": (
        190,
        lambda n: bytewise(START + b"".join(b"X%d: %b\r\n" % (i, b"a" * 300) for i in range(n))),
    ),
    "a field byte by byte": (30_000, lambda n: bytewise(START + b"X: " + b"a" * n)),
    "chunks of a byte": (10_000, lambda n: [CODED + b"1\r\na\r\n" * n]),
    "chunks of a byte, byte by byte": (5_000, lambda n: bytewise(CODED + b"1\r\na\r\n" * n)),
    "extensions": (4_000, lambda n: [CODED + b"0;" + b"a=b;" * n + b"c\r\n\r\n"]),
    "a quote that does not end": (8_000, lambda n: [CODED + b'5;a="' + b'\\"' * n + b"\r\n"]),
    "spaces in a trailer": (16_000, lambda n: [CODED + b"0\r\nX:" + b" " * n + b"\1\r\n"]),
    "spaces and tabs in a trailer": (8_000, lambda n: [CODED + b"0\r\nX:" + b" \t" * n + b"a\r\n\r\n"]),
    "spaces in a field": (30_000, lambda n: [START + b"X:" + b" " * n + b"\r\n\r\n"]),
    "a long Host": (15_000, lambda n: [b"GET / HTTP/1.1\r\nHost: " + b"a." * n + b"!\r\n\r\n"]),
    "a long authority": (5_000, lambda n: [b"GET http://" + b"a-." * n + b"!/ HTTP/1.1\r\nHost: a\r\n\r\n"]),
    "a long path": (3_200, lambda n: [b"GET /" + b"a/../" * n + b" HTTP/1.1\r\nHost: a\r\n\r\n"]),
    "many options": (15_000, lambda n: [START + b"Connection: " + b"a," * n + b"\r\n\r\n"]),
    "many protocols": (15_000, lambda n: [START + b"Connection: upgrade\r\nUpgrade: " + b"a," * n + b"a\r\n\r\n"]),
    "many codings": (15_000, lambda n: [START + b"Transfer-Encoding: " + b"a," * n + b"chunked\r\n\r\n"]),
    "many requests": (9_000, lambda n: [GET * n]),
}


@pytest.mark.no_cover  # a trace would be most of what is measured
@pytest.mark.parametrize("name", COSTLY)
def test_no_bytes_cost_much(name: str) -> None:
    """Twice as many take twice as many calls, and no expression takes the square of the bytes (3.7 s for spaces, once).

    What an expression does inside one call is counted by nothing but the processor's time. So that is compared with
    itself: the square would be four times as much. As others disturb it, once in ten is enough; the square never is.
    """
    most, some = COSTLY[name]
    half, whole = some(most // 2), some(most)
    ask(half)  # names are learned once
    assert calls(whole) < 2.1 * calls(half) + 100
    assert any(seconds(whole) < max(3 * seconds(half), 0.02) for _ in range(10))


def calls(pieces: list[bytes]) -> int:
    """How many calls are made to read them, of C's functions too."""
    found = count()
    sys.setprofile(lambda _, event, __: next(found) if event in {"call", "c_call"} else None)
    try:
        ask(pieces)
    finally:
        sys.setprofile(None)
    return next(found)


def seconds(pieces: list[bytes]) -> float:
    start = time.process_time()
    ask(pieces)
    return time.process_time() - start


# --- words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (START + b"A: b\r\nX : y\r\n\r\n", "line 4 of the head has a space before the colon: `X `"),
        (START + b"A: b\0c\r\n\r\n", "line 3 has a control character, 0x00, at byte 5"),
        (START + b"A: b\rc\r\n\r\n", "line 3 has a CR without LF, at byte 5"),
        (START + b"A: b\n\r\n", "line 3 has an LF without CR, at byte 5"),
        (START + b"Content-Length: +5\r\n\r\n", "Content-Length: +5 is not a number of bytes"),
        (START + b"Transfer-Encoding: gzip\r\n\r\n", "Transfer-Encoding: gzip is not understood; only `chunked` is"),
        (b"\x16\x03\x01\x02\x00", "is this TLS, sent to a plain port?"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "this is HTTP/2; only HTTP/1.1 is understood here"),
        (b"GET /\r\n", "write HTTP/1.1 at its end"),
        (b"GET / HTTP/1.1\r\n\r\n", "the request has no Host field"),
        (START + b"Host: b\r\n\r\n", "the request has 2 Host fields"),
        (b"GET /100% HTTP/1.1\r\nHost: a\r\n\r\n", "the path has `%`, which is no escape; write a percent sign as %25"),
        (START + b"Connection: Cookie\r\n\r\n", "Connection: cookie names a field that is not for one hop"),
        (START + b"Content_Length: 5\r\n\r\n", "the field Content_Length can be taken for content-length; write that"),
    ],
)
def test_a_refusal_says_what_and_where(data: bytes, said: str) -> None:
    assert said in words(data)


def test_what_is_said_is_bounded() -> None:
    for data in (
        b"A" * 9000 + b" / HTTP/1.1\r\n",
        START + b"B" * 9000 + b"\r\n",
        START + b"Content-Length: " + b"C" * 9000 + b"\r\n\r\n",
        b"GET http://" + b"d" * 9000 + b"/ HTTP/1.1\r\nHost: a\r\n\r\n",
        START + b"Expect: " + b"E" * 9000 + b"\r\n\r\n",
        CODED + b"F" * 9000 + b"\r\n",
    ):
        assert len(words(data)) < 250

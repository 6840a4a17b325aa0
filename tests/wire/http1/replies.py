"""Replies as servers send them, with what they mean, and the same damaged; for hypothesis."""

from __future__ import annotations

import string
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.wire.http1.reading import Fields, Read

__all__ = ["Exchange", "Reply", "damaged", "exchanges"]


@dataclass(frozen=True)
class Reply:
    """What a server sends in answer to a request with `method`."""

    method: str
    data: bytes

    def __repr__(self) -> str:
        data = self.data
        if len(data) < 3000:
            return f"Reply({self.method!r}, {data!r})"
        return f"Reply({self.method!r}, {data[:1500]!r} + {len(data) - 2000} bytes + {data[-500:]!r})"


@dataclass(frozen=True, repr=False)
class Exchange(Reply):
    """A reply and what it means if the server closes after it."""

    means: Read


TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
FRAMING = {b"content-length", b"transfer-encoding", b"connection", b"proxy-connection", b"upgrade"}
VISIBLE = [*range(0x21, 0x7F), *range(0x80, 0x100)]

tokens = st.text(alphabet=TOKEN, min_size=1, max_size=12).map(str.encode)
names = tokens.filter(lambda name: name.lower() not in FRAMING)
spaces = st.sampled_from([b"", b" ", b"\t", b"  ", b" \t "])
texts = st.lists(st.sampled_from([*VISIBLE, 0x20, 0x09]), max_size=16).map(bytes)
reasons = st.one_of(st.just(b"OK"), texts)
fields = st.lists(st.tuples(names, texts), max_size=4)

methods = st.sampled_from(["GET", "GET", "POST", "HEAD"])
statuses = st.sampled_from([200, 200, 200, 201, 204, 205, 206, 304, 404, 426, 503, 600, 999])
interim_statuses = st.sampled_from([100, 100, 102, 103, 104, 199])
versions = st.sampled_from(["1.1", "1.1", "1.1", "1.0"])
# What the connection's options are, and whether they close it in HTTP/1.1 and keep it in HTTP/1.0.
connections: st.SearchStrategy[tuple[Fields, bool, bool]] = st.sampled_from(
    [
        ([], False, False),
        ([], False, False),
        ([(b"Connection", b"close")], True, False),
        ([(b"Connection", b"keep-alive")], False, True),
        ([(b"connection", b"Keep-Alive , x")], False, True),
        ([(b"Connection", b"x,CLOSE")], True, False),
        ([(b"Connection", b"keep-alive, close")], True, False),
        ([(b"Connection", b"keep-alive"), (b"connection", b"close")], True, False),
        ([(b"Connection", b"closed")], False, False),
        ([(b"Proxy-Connection", b"keep-alive")], False, False),
    ]
)
# What an interim head says of a body or of the connection means nothing.
interim_fields = st.lists(
    st.one_of(
        st.tuples(names, texts),
        st.sampled_from([(b"Connection", b"close"), (b"Upgrade", b"h2c"), (b"Connection", b"upgrade")]),
    ),
    max_size=3,
)
interim_framings: st.SearchStrategy[Fields] = st.sampled_from(
    [[], [], [], [(b"Content-Length", b"19")], [(b"Transfer-Encoding", b"chunked")]]
)
bodies = st.one_of(
    st.just(b""),
    st.binary(max_size=64),
    st.sampled_from([b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]),
    st.integers(1, 300).map(lambda size: bytes(range(256)) * size),
)
surpluses = st.sampled_from([b""] * 6 + [b"\r\n", b"\n", b"x", b"HTTP/1.1 200 OK\r\n\r\n", b"0\r\n\r\n", b"\0" * 99])
quoted = st.sampled_from([b'""', b'"a b;c"', b'"\\""'])
extensions = st.lists(st.tuples(tokens, st.one_of(st.none(), tokens, quoted)), max_size=2)


def _lines(given: Fields, draw: st.DrawFn) -> bytes:
    return b"".join(b"%b:%b%b%b\r\n" % (name, draw(spaces), value, draw(spaces)) for name, value in given)


def _meant(given: Fields) -> Fields:
    return [(name, value.strip(b" \t")) for name, value in given]


def _chunk_line(size: int, draw: st.DrawFn) -> bytes:
    digits = draw(st.sampled_from([b"%x", b"%X", b"0%x", b"000%x"])) % size
    said = draw(extensions) if draw(st.booleans()) else []
    return digits + b"".join(b";" + name + (b"=" + value if value else b"") for name, value in said) + b"\r\n"


def _chunked(body: bytes, trailers: Fields, draw: st.DrawFn) -> bytes:
    out = []
    while body:
        size = min(len(body), draw(st.integers(1, 40)) if len(out) < 6 else len(body))
        out.append(_chunk_line(size, draw) + body[:size] + b"\r\n")
        body = body[size:]
    return b"".join(out) + _chunk_line(0, draw) + _lines(trailers, draw) + b"\r\n"


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    """A valid reply to GET, POST or HEAD."""
    method, version, status = draw(methods), draw(versions), draw(statuses)
    options, closes, keeps = draw(connections)
    framing = draw(st.sampled_from(["length", "chunks", "close"]))
    interim = draw(st.lists(st.tuples(interim_statuses, reasons, interim_fields, interim_framings), max_size=2))
    head: Fields = draw(fields)
    head = [*head, *options] if draw(st.booleans()) else [*options, *head]
    bodiless = method == "HEAD" or status in (204, 304)
    body = draw(bodies)
    trailers: Fields = draw(fields) if framing == "chunks" and not bodiless else []
    if framing == "length":
        head.append((draw(st.sampled_from([b"Content-Length", b"content-length"])), b"%d" % len(body)))
    elif framing == "chunks":
        head.append((draw(st.sampled_from([b"Transfer-Encoding", b"TRANSFER-encoding"])), b"chunked"))
    reason = draw(reasons)
    data = b"".join(
        b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (code, why, _lines(more, draw), b"".join(b"%b: %b\r\n" % one for one in framed))
        for code, why, more, framed in interim
    )
    # llhttp takes `chunked` only where no tab follows it; the reader refuses the rest.
    lines = _lines(head[:-1], draw) + b"%b: %b\r\n" % head[-1] if framing != "close" else _lines(head, draw)
    data += b"HTTP/%b %d %b\r\n%b\r\n" % (version.encode(), status, reason, lines)
    if bodiless:
        body = b""
    else:
        data += _chunked(body, trailers, draw) if framing == "chunks" else body
    to_eof = framing == "close" and not bodiless
    surplus = b"" if to_eof else draw(surpluses)
    kept = not closes if version == "1.1" else keeps and framing != "chunks"
    means = Read(
        status=status,
        reason=reason,
        version=version,
        fields=_meant(head),
        body=body,
        trailers=_meant(trailers),
        complete=True,
        reusable=kept and not surplus and not to_eof,
        surplus=b"",
        continued=any(code == 100 for code, *_ in interim),
    )
    return Exchange(method, data + surplus, means)


# What parsers have stumbled over: anywhere, or as lines of their own.
SPLINTERS = [
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"=",
        b'"',
        b"+",
        b"-",
        b"_",
        b"0",
        b"1",
    ),
    *(b"\x0b", b"\x0c", b"\x7f", b"\x80", b"\xff", b"H", b"HTTP/1.1", b"HTTP/1.0", b"RTSP/1.0", b"ICE/1.0", b"0x"),
    *(b"0" * 25, b"f" * 18, b"99999999999", b", chunked", b" chunked", b",close", b"\r\n \r\n"),
]
LINES = [
    *(b"Content-Length: 2", b"Content-Length:\t1\t", b"content-length: 0" + b"0" * 20, b"Content-Length: 5, 5"),
    *(b"Transfer-Encoding: chunked", b"transfer-encoding: gzip", b"Transfer-Encoding:\tchunked\t", b" folded"),
    *(b"Connection: close", b"Connection: keep-alive", b"Proxy-Connection: keep-alive", b"Connection: upgrade"),
    *(b"Upgrade: x", b"Connection: upgrade\r\nUpgrade: x", b"Name", b": value", b"Name : value", b"", b"\r\n\r\n"),
    *(b"0", b"0\r\n", b"5\r\nhello", b"2;a\r\nok", b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 101 Go\r\n"),
    *(
        b"HTTP/1.1 100 Continue\r\n",
        b"HTTP/1.1 150 X\r\nContent-Length: 19\r\n",
        b"HTTP/1.0 103 X\r\nConnection: close\r\n",
    ),
]

places = st.integers(0, 1 << 16)
damages = st.one_of(
    st.tuples(st.sampled_from(["put", "insert", "prepend", "append"]), places, st.sampled_from(SPLINTERS)),
    st.tuples(st.sampled_from(["line", "in place"]), places, st.sampled_from(LINES)),
    st.tuples(st.sampled_from(["flip", "delete", "truncate"]), places, places),
    st.tuples(st.sampled_from(["double", "drop", "swap"]), places, places),
)


def _with_bytes(data: bytes, how: str, place: int, what: bytes | int) -> bytes:
    """Damage at a byte. Most of what matters is in the head, and bodies are long."""
    at = place % (min(len(data), 400) + 1)
    match how, what:
        case "flip", int():
            return data[:at] + bytes(byte ^ (1 << what % 8) for byte in data[at : at + 1]) + data[at + 1 :]
        case "delete", int():
            return data[:at] + data[at + 1 + what % 8 :]
        case "put", bytes():
            return data[:at] + what + data[at + len(what) :]
        case "insert", bytes():
            return data[:at] + what + data[at:]
    return data[:at]


def _with_lines(data: bytes, how: str, place: int, what: bytes | int) -> bytes:
    """Damage at a line."""
    lines = data.split(b"\r\n")
    at = place % len(lines)
    match how, what:
        case "prepend", bytes():
            lines[at] = what + lines[at]
        case "append", bytes():
            lines[at] += what
        case "line", bytes():
            lines.insert(at, what)
        case "in place", bytes():
            lines[at] = what
        case "double", int():
            lines.insert(what % len(lines), lines[at])
        case "swap", int():
            lines[at], lines[what % len(lines)] = lines[what % len(lines)], lines[at]
        case _:
            del lines[at]
    return b"\r\n".join(lines)


@st.composite
def damaged(draw: st.DrawFn) -> Reply:
    """A valid reply, damaged at up to three places."""
    exchange = draw(exchanges())
    data = exchange.data
    for how, place, what in draw(st.lists(damages, min_size=1, max_size=3)):
        damage = _with_bytes if how in ("flip", "delete", "truncate", "put", "insert") else _with_lines
        data = damage(data, how, place, what)
    return Reply(exchange.method, data)

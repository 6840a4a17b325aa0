"""Requests as clients send them, also one behind another, with what they mean, and the same damaged; for hypothesis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.wire.http1 import replies
from tests.wire.http1.asking import Request
from tests.wire.http1.reading import Fields

__all__ = ["LINES", "ONE_BYTE_OFF", "SPLINTERS", "Sent", "damaged", "one_byte_off", "sendings"]


@dataclass(frozen=True)
class Sent:
    """What a client sends on one connection, and the requests it is; None where that is not known."""

    data: bytes
    means: list[Request] | None = None

    def __repr__(self) -> str:
        data = self.data
        if len(data) < 3000:
            return f"Sent({data!r})"
        return f"Sent({data[:1500]!r} + {len(data) - 2000} bytes + {data[-500:]!r})"


SPECIAL = {*replies.FRAMING, b"host", b"expect"}
names = replies.tokens.filter(lambda name: name.lower() not in SPECIAL and b"_" not in name)
fields = st.lists(st.tuples(names, replies.texts), max_size=4)
trailers = st.lists(st.tuples(names.map(lambda name: b"y" + name), replies.texts), max_size=2)
methods = st.sampled_from(b"GET GET GET POST POST HEAD PUT PATCH DELETE OPTIONS QUERY M-SEARCH PROPFIND".split())
hosts = st.sampled_from(
    [b"mesh", b"mesh:8080", b"a-b.c_d.local.", b"127.0.0.1:1", b"[::1]", b"[fe80::1]:65535", b"MESH"]
)
letters = st.sampled_from([bytes([byte]) for byte in range(0x21, 0x7F) if byte not in b"%#"])
segments = st.lists(st.one_of(letters, letters, st.sampled_from([b"%20", b"%C3%A9", b"%2f"])), max_size=6).map(b"".join)
paths = st.lists(segments, min_size=1, max_size=3).map(lambda parts: b"".join(b"/x" + part for part in parts))
queries = st.one_of(st.just(b""), letters.map(lambda letter: b"?100%&a=/../.." + letter))
options: st.SearchStrategy[tuple[Fields, bool, bool]] = replies.connections
lengths = st.sampled_from([b"Content-Length", b"content-length", b"CONTENT-LENGTH"])
codings = st.sampled_from([b"Transfer-Encoding", b"TRANSFER-encoding"])
some_spaces = st.sampled_from([b"", b" ", b"  "])
starts = st.sampled_from([b""] * 6 + [b"\r\n", b"\r\n\r\n"])


def _line(name: bytes, value: bytes, draw: st.DrawFn) -> bytes:
    """A field with spaces around its value; with tabs too, where servers agree on what they mean."""
    around = some_spaces if name.lower() in SPECIAL else replies.spaces
    return b"%b:%b%b%b\r\n" % (name, draw(around), value, draw(around))


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, Request]:
    """A valid request."""
    method, host, path = draw(methods), draw(hosts), draw(paths) + draw(queries)
    new = draw(st.sampled_from([True, True, True, False]))
    target, said = path, host
    if draw(st.sampled_from([False] * 6 + [True])):
        host = draw(hosts)
        target = b"http://" + host + path
    head: Fields = [*draw(fields), (b"Host", said), *draw(fields)]
    connection, closes, keeps = draw(options)
    head = [*head, *connection] if draw(st.booleans()) else [*connection, *head]
    framing = draw(st.sampled_from(["none", "length", "chunks"] if new else ["none", "length"]))
    body, after = b"", b""
    ends: Fields = []
    if framing == "length":
        after = body = draw(replies.bodies)
        head.insert(draw(st.integers(0, 3)), (draw(lengths), b"%d" % len(body)))
    elif framing == "chunks":
        body, ends = draw(replies.bodies), draw(trailers)
        after = replies._chunked(body, ends, draw)
        head.append((draw(codings), draw(st.sampled_from([b"chunked", b"Chunked"]))))
    lines = b"".join(_line(name, value, draw) for name, value in head)
    data = draw(starts) + b"%b %b HTTP/1.%d\r\n%b\r\n" % (method, target, new, lines) + after
    means = Request(
        method=method,
        target=target,
        version="1.1" if new else "1.0",
        fields=replies._meant(head),
        host=host,
        length=-1 if framing == "chunks" else len(body),
        keeps_alive=not closes if new else keeps,
        expects=False,
        upgrade=b"",
        complete=True,
        body=body,
        trailers=replies._meant(ends),
    )
    return data, means


@st.composite
def sendings(draw: st.DrawFn) -> Sent:
    """Up to three requests; behind one that ends the connection there may be others, which are nobody's."""
    data, means = b"", []
    open_ = True
    for part, meaning in draw(st.lists(requests(), min_size=1, max_size=3)):
        data += part
        if open_:
            means.append(meaning)
        open_ = open_ and meaning.keeps_alive
    return Sent(data, means)


SPLINTERS = [
    *replies.SPLINTERS,
    *(
        b" HTTP/1.1\r\n",
        b" HTTP/1.1\r\nHost: mesh\r\n",
        b"GET / HTTP/1.1\r\nHost: mesh\r\n\r\n",
        b"/../",
        b"%",
        b"%00",
        b"#",
    ),
    *(b"http://mesh", b"//", b"@", b"\\", b"HTTP/2.0", b"?", b"0\r\n\r\n", b"\x85", b"\xa0"),
]
LINES = [
    *(line for line in replies.LINES if not line.startswith(b"HTTP/")),
    *(b"Host: mesh", b"Host: other", b"host:", b"Host: mesh, other", b"Expect: 100-continue", b"Expect: x"),
    *(
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.0",
        b"GET http://other/ HTTP/1.1",
        b"CONNECT mesh:80 HTTP/1.1",
        b"CONNECT HTTP/1.0",
        b"GET /",
    ),
    *(b"Content-Length: 0", b"Content_Length: 2", b"Content-Length: +2", b"Transfer-Encoding: chunked, gzip"),
    *(
        b"Connection: host",
        b"Connection: content-length",
        b"Connection: ,",
        b"Upgrade: h2c",
        b"Proxy-Connection: close",
        b"Keep-Alive: timeout=5",
    ),
]
damages = st.one_of(
    st.tuples(st.sampled_from(["put", "insert", "prepend", "append"]), replies.places, st.sampled_from(SPLINTERS)),
    st.tuples(st.sampled_from(["line", "in place"]), replies.places, st.sampled_from(LINES)),
    st.tuples(st.sampled_from(["flip", "delete", "truncate"]), replies.places, replies.places),
    st.tuples(st.sampled_from(["double", "drop", "swap"]), replies.places, replies.places),
)


@st.composite
def damaged(draw: st.DrawFn) -> Sent:
    """Valid requests, damaged at up to three places."""
    data = draw(sendings()).data
    for how, place, what in draw(st.lists(damages, min_size=1, max_size=3)):
        bytewise = how in ("flip", "delete", "truncate", "put", "insert")
        data = (replies._with_bytes if bytewise else replies._with_lines)(data, how, place, what)
    return Sent(data)


ONE_BYTE_OFF = [
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nokGET / HTTP/1.0\r\n\r\n",
    b"PUT / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: b\r\n\r\nGE",
]


def one_byte_off(data: bytes, some: bytes) -> Iterator[bytes]:
    """`data` with each byte of `some` put in, or instead of what is there, at each place."""
    for at in range(len(data) + 1):
        for byte in some:
            yield data[:at] + bytes([byte]) + data[at:]
            yield data[:at] + bytes([byte]) + data[at + 1 :]

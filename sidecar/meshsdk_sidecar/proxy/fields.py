"""Header fields on their way through: those of one connection come off, the rest goes on as it came.

Rule 1  Names keep their spelling and fields their order; nothing is joined, split or corrected.
Rule 2  Off come the fields of one connection (RFC 9110, 7.6.1): Connection, what it names, Keep-Alive, TE, Upgrade,
        Transfer-Encoding and what clients say to proxies. Each side gets the framing that its own connection needs.
Rule 3  The deadline and the attempt's number are ours to say, and `x-forwarded-client-cert` is nobody's but the mesh's;
        so is `x-mesh-undelivered`, which goes no further than the sidecar that hears it. `SCRIPT_NAME` is no client's:
        gunicorn believes it of a proxy on its machine, and routes another path than the one that was judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshsdk.server.deadline import ENVOY_HEADER, GRPC_HEADER
from meshsdk.server.forwarded import XFCC
from meshsdk.wire.http1 import Framing, Incoming
from meshsdk.wire.http1.body import BodyWriter
from meshsdk.wire.http1.replies import status_line
from meshsdk.wire.http1.requests import Asked
from meshsdk.wire.undelivered import UNDELIVERED

__all__ = ["ReplyHead", "RequestHead", "interim_head", "reply_head", "request_head", "trailing", "welcomes_more"]

_PLAIN: Final = 0
_DROPPED: Final = 1
_CONNECTION: Final = 2
_HOST: Final = 3
_LENGTH: Final = 4
_TIMEOUT: Final = 5
_KEY: Final = 6
_TRACE: Final = 7
_SPECIAL: Final = {
    b"connection": _CONNECTION,
    b"keep-alive": _DROPPED,
    b"proxy-connection": _DROPPED,
    b"proxy-authenticate": _DROPPED,
    b"proxy-authorization": _DROPPED,
    b"te": _DROPPED,
    b"transfer-encoding": _DROPPED,
    b"upgrade": _DROPPED,
    b"http2-settings": _DROPPED,
    b"x-envoy-attempt-count": _DROPPED,
    XFCC: _DROPPED,
    UNDELIVERED: _DROPPED,
    b"script_name": _DROPPED,
    b"host": _HOST,
    b"content-length": _LENGTH,
    ENVOY_HEADER: _TIMEOUT,
    GRPC_HEADER: _TIMEOUT,
    b"idempotency-key": _KEY,
    b"traceparent": _TRACE,
}

# RFC 9110, 6.5.1: in a trailer they would come too late, or mean something else than in the head.
_NO_TRAILERS: Final = frozenset({_DROPPED, _CONNECTION, _HOST, _LENGTH})

_AS_IT_CAME: Final = frozenset({_PLAIN, _LENGTH})


_REMEMBERED: Final = 500


class _Names(dict[bytes, int]):
    """What is known of names seen before, in every spelling; bounded, as names come from outside."""

    def __missing__(self, name: bytes) -> int:
        kind = _SPECIAL.get(name.lower(), _PLAIN)
        if len(self) < _REMEMBERED:
            self[name] = kind
        return kind


_names: Final = _Names()

_ORDINARY_OPTIONS: Final = frozenset({b"keep-alive", b"close", b"upgrade", b"te", b""})


@dataclass(slots=True, init=False)
class RequestHead:
    """A request as every try sends it, but for what a try adds of its own.

    Attributes:
        lines: the request line and the fields, each with its end; without the empty line.
        timeouts: the caller's deadline as it was sent, names in small letters.
        keyed: it has an Idempotency-Key.
        traceparent: as it was sent; the last of several.
    """

    lines: bytes
    timeouts: list[tuple[bytes, bytes]]
    keyed: bool
    traceparent: bytes

    def __init__(
        self,
        lines: bytes,
        timeouts: list[tuple[bytes, bytes]],
        keyed: bool,
        traceparent: bytes,
    ) -> None:
        self.lines = lines
        self.timeouts = timeouts
        self.keyed = keyed
        self.traceparent = traceparent


def request_head(asked: Asked, target: bytes, *, upgrade: bool = False) -> RequestHead:
    """The head to send on.

    Args:
        target: in origin form, or `*`.
        upgrade: whether the upgrade that is asked for is passed on; else the request goes without it.
    """
    lines = [b"%b %b HTTP/1.1\r\n" % (asked.method, target)]
    timeouts: list[tuple[bytes, bytes]] = []
    named: set[bytes] = set()
    keyed, traceparent = False, b""
    known = _names
    for name, value in asked.fields:
        kind = known[name]
        if kind in _AS_IT_CAME:
            lines.append(b"%b: %b\r\n" % (name, value))
        elif kind == _CONNECTION:
            _options(value, named)
        elif kind == _TIMEOUT:
            timeouts.append((name.lower(), value))
        elif kind != _DROPPED:  # Host is that of an absolute target, where there is one
            keyed |= kind == _KEY
            traceparent = value if kind == _TRACE else traceparent
            lines.append(b"%b: %b\r\n" % (name, (asked.host or b"") if kind == _HOST else value))
    if asked.version == "1.0":
        _modernise(lines, asked, named)
    if named:
        lines = _without(lines, named)
    if asked.length == Framing.CHUNKED:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if upgrade:
        lines.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % asked.upgrade)
    return RequestHead(b"".join(lines), timeouts, keyed, traceparent)


def _modernise(lines: list[bytes], asked: Asked, named: set[bytes]) -> None:
    """A request of HTTP/1.0 is sent on as 1.1, which needs a Host; `Expect` was not there then (RFC 9110, 10.1.1)."""
    named.add(b"expect")
    if not any(line[:5].lower() == b"host:" for line in lines):
        lines.insert(1, b"Host: %b\r\n" % (asked.host or b""))


@dataclass(slots=True, init=False)
class ReplyHead:
    """A reply's head as it goes to the client.

    Attributes:
        data: with the empty line.
        body: writes the body in chunks; None where it goes as it is.
        keeps: another request may follow on the connection, as far as the reply is concerned.
    """

    data: bytes
    body: BodyWriter | None
    keeps: bool

    def __init__(
        self,
        data: bytes,
        body: BodyWriter | None,
        keeps: bool,
    ) -> None:
        self.data = data
        self.body = body
        self.keeps = keeps


def reply_head(reply: Incoming, asked: Asked, *, keep: bool) -> ReplyHead:
    """The head to send to the client.

    Args:
        keep: whether the connection is to be kept, if it can be.
    """
    lines, sized = _lines(reply.status, reply.reason, reply.headers)
    body = None
    if not (sized or _bodiless(asked.method, reply.status)):
        body, keep = _frame(reply, asked, lines, keep)
    if asked.version == "1.1":
        if not keep:
            lines.append(b"Connection: close\r\n")
    elif keep:
        lines.append(b"Connection: keep-alive\r\n")
    lines.append(b"\r\n")
    return ReplyHead(b"".join(lines), body, keep)


def interim_head(status: int, fields: list[tuple[bytes, bytes]]) -> bytes:
    """An interim reply as it goes to the client."""
    lines, _ = _lines(status, b"", fields)
    return b"".join(lines) + b"\r\n"


def trailing(trailers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The trailers of a reply that go on."""
    if not trailers:
        return trailers
    return [pair for pair in trailers if _names[pair[0]] not in _NO_TRAILERS and pair[0].lower() != b"trailer"]


def welcomes_more(reply: Incoming) -> bool:
    """Whether a server whose answer came before the request's end may read on: it is good, and says nothing of closing
    (RFC 9112, 9.6).
    """
    return reply.status < 300 and not any(
        _names[name] == _CONNECTION and b"close" in {option.strip().lower() for option in value.split(b",")}
        for name, value in reply.headers
    )


def _lines(status: int, reason: bytes, fields: list[tuple[bytes, bytes]]) -> tuple[list[bytes], bool]:
    """The status line and the fields that go on, and whether the body's length is among them."""
    lines = [status_line(status, reason)]
    named: set[bytes] = set()
    sized = False
    known = _names
    bare = status == 204 or status < 200  # RFC 9110, 8.6: no word about a length
    for name, value in fields:
        kind = known[name]
        if kind == _CONNECTION:
            _options(value, named)
        elif kind != _DROPPED and not (bare and kind == _LENGTH):
            sized |= kind == _LENGTH
            lines.append(b"%b: %b\r\n" % (name, value))
    return _without(lines, named) if named else lines, sized


def _bodiless(method: bytes, status: int) -> bool:
    """RFC 9112, 6.3."""
    return method == b"HEAD" or status in {204, 304} or status < 200


def _frame(reply: Incoming, asked: Asked, lines: list[bytes], keep: bool) -> tuple[BodyWriter | None, bool]:
    """Delimit a body whose length the server did not say."""
    if reply.complete and not reply.trailers:
        lines.append(b"Content-Length: %d\r\n" % sum(map(len, reply.pieces)))
        return None, keep
    if asked.version == "1.1":
        lines.append(b"Transfer-Encoding: chunked\r\n")
        return BodyWriter(Framing.CHUNKED), keep
    return None, False  # HTTP/1.0 knows no chunks: the body ends with the connection


def _options(value: bytes, named: set[bytes]) -> None:
    if value not in {b"keep-alive", b"close"}:
        named.update({option.strip().lower() for option in value.split(b",")} - _ORDINARY_OPTIONS)


def _without(lines: list[bytes], named: set[bytes]) -> list[bytes]:
    """Take off the fields that Connection names. Those that frame the message are not its to take."""
    return [
        line for line in lines if (name := line.partition(b":")[0].lower()) not in named or name == b"content-length"
    ]

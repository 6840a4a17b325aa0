"""Writes the head of a request, and refuses what is none: a header value with a line break would be a second request.

Rule 1  Nothing is corrected silently. Names are tokens, values have no control characters, there is one `Host`, and one
        of Content-Length and Transfer-Encoding at most; anything else is `InvalidRequest` with the field's name.
Rule 2  A body without either gets what it needs: its length where it is known, chunks where it is not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meshsdk.wire.engine import InvalidRequest
from meshsdk.wire.http1.body import Framing
from meshsdk.wire.http1.fields import CONTROL, TOKEN

__all__ = ["Head", "write_head"]

# RFC 9112, 3.2: a target has no spaces, and we send nothing that is not ASCII in it.
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_CONTROL_IN_HEAD: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# No body is longer than 2**64 bytes.
_DIGITS: Final = 20

_PLAIN: Final = 0
_CONNECTION: Final = 1
_HOST: Final = 2
_LENGTH: Final = 3
_CODING: Final = 4
_EXPECT: Final = 5
_SPECIAL: Final = {
    b"connection": _CONNECTION,
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"expect": _EXPECT,
}

# What is known of names seen before: most requests of a process carry the same dozen. Bounded, as names may come from
# outside.
_names: dict[bytes, int] = {}
_methods: dict[str, bytes] = {}
_REMEMBERED: Final = 500


@dataclass(slots=True)
class Head:
    """A request's head as it goes out.

    Attributes:
        data: up to and with the empty line.
        length: of the body in bytes; `Framing.CHUNKED` where it goes in chunks.
        expects: the body is to wait for `100 Continue` (RFC 9110, 10.1.1).
        closes: it says `Connection: close`, so no other request may follow (RFC 9112, 9.6).
    """

    data: bytes
    length: int
    expects: bool
    closes: bool = False


def write_head(method: str, target: bytes, fields: Sequence[tuple[bytes, bytes]], length: int | None) -> Head:
    """Write a head.

    Args:
        length: of the body in bytes; None where it is not known before it was read.

    Raises:
        InvalidRequest: what was given makes no valid head; the message says which part.
    """
    lines = [b"%b %b HTTP/1.1" % (_methods.get(method) or _method(method), target)]
    hosts = 0
    said: bytes | None = None
    coding: bytes | None = None
    expects = closes = False
    known = _names
    for name, value in fields:
        kind = known.get(name)
        if kind is None:
            kind = _learn(name)
        if kind:
            if kind == _CONNECTION:
                closes |= value != b"keep-alive" and _says_close(value)
            elif kind == _HOST:
                hosts += 1
            elif kind == _EXPECT:
                expects = value.lower() == b"100-continue"
            elif kind == _LENGTH:
                said = _once(name, said, value)
            else:
                coding = _once(name, coding, value)
        lines.append(name + b": " + value)
    if hosts != 1:
        raise InvalidRequest(f"the request has {hosts} Host headers; it needs one")
    # A request without a body, as most are, leaves nothing to decide.
    framing = 0 if said is None and coding is None and length == 0 else _framing(said, coding, length, lines)
    lines.append(b"\r\n")
    data = b"\r\n".join(lines)
    breaks = len(lines)
    broken = data.count(b"\n") != breaks or data.count(b"\r") != breaks or _CONTROL_IN_HEAD.search(data)
    if broken or not target or b" " in target or b"\t" in target or not target.isascii():
        raise _unfit(target, fields)
    return Head(data, framing, expects and framing != 0, closes)


def _says_close(value: bytes) -> bool:
    return any(option.strip() == b"close" for option in value.lower().split(b","))


def _framing(said: bytes | None, coding: bytes | None, length: int | None, lines: list[bytes]) -> int:
    """Decide how the body is delimited, adding the field that says so where the caller gave none."""
    if coding is not None:
        if said is not None:
            raise InvalidRequest("the request has Content-Length and Transfer-Encoding; leave one out")
        if coding.lower() != b"chunked":
            raise InvalidRequest(f"Transfer-Encoding: {coding!r} cannot be sent; only `chunked` can")
        return Framing.CHUNKED
    if said is not None:
        if not said.isdigit() or len(said) > _DIGITS:
            raise InvalidRequest(f"Content-Length: {said[:80]!r} is not a number of bytes")
        if length is not None and int(said) != length:
            raise InvalidRequest(f"Content-Length is {int(said)} and the body has {length} bytes")
        return int(said)
    if length is None:
        lines.append(b"Transfer-Encoding: chunked")
        return Framing.CHUNKED
    if length:
        lines.append(b"Content-Length: %d" % length)
    return length


def _once(name: bytes, before: bytes | None, value: bytes) -> bytes:
    if before is not None:
        raise InvalidRequest(f"the request has more than one {name.decode()} header")
    return value


def _method(method: str) -> bytes:
    written = method.encode("ascii", "replace")
    if not TOKEN.fullmatch(written):
        raise InvalidRequest(f"the method {method!r} is no token (RFC 9110, 5.6.2)")
    if method == "CONNECT":
        raise InvalidRequest("CONNECT asks a proxy for a tunnel; a mesh service is called with any other method")
    if len(_methods) < _REMEMBERED:
        _methods[method] = written
    return written


def _learn(name: bytes) -> int:
    if not TOKEN.fullmatch(name):
        raise InvalidRequest(f"the header name {name!r} is no token (RFC 9110, 5.6.2)")
    kind = _SPECIAL.get(name.lower(), _PLAIN)
    if len(_names) < _REMEMBERED:
        _names[name] = kind
    return kind


def _unfit(target: bytes, fields: Sequence[tuple[bytes, bytes]]) -> InvalidRequest:
    """Find out what of a head that cannot be sent is wrong."""
    if not _TARGET.fullmatch(target):
        return InvalidRequest(
            f"the target {target[:80]!r} is empty or has spaces, control or non-ASCII characters; encode them as %XX"
        )
    for name, value in fields:
        if CONTROL.search(value):
            return InvalidRequest(f"the header {name.decode()} has a control character in its value: {value[:80]!r}")
    return InvalidRequest("the head cannot be written")

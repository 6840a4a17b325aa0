"""Finds what is wrong with a head that was not accepted, and where; also with the first part of one.

Rule    Line by line, and in a line byte by byte, the first fault counts. So a head is refused for the same reason
        however it is cut: a fault found in its first part is the first of the whole.
"""

from __future__ import annotations

import re
from typing import Final

from meshsdk.wire.http1.fields import TOKEN
from meshsdk.wire.http1.limits import RequestLimits
from meshsdk.wire.http1.refused import Refused

__all__ = ["BROKEN", "METHODS", "START", "find_fault"]

# RFC 9112, 3; what a target has in it is RFC 3986's, loosely: `|` and the like come from browsers too.
START: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([\x21\x22\x24-\x7e]+) HTTP/1\.([01])\r\n")

# What no head may have in it: controls, CR or LF without the other (the last byte may be a CR whose LF is to come).
BROKEN: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?![\n]|\Z)|(?<!\r)\n")

# The methods llhttp knows, without those of RTSP. Node, and Envoy by default, refuse all others too.
METHODS: Final = frozenset(
    b"ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY "
    b"OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE TRACE UNBIND UNLINK "
    b"UNLOCK UNSUBSCRIBE".split()
)

# nginx takes a tab before or behind a value for a part of it, others for a space.
_UNTABBED: Final = frozenset(
    (b"connection", b"content-length", b"expect", b"host", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)

_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")


def find_fault(data: bytes, limits: RequestLimits, at: int = 0, number: int = 1) -> Refused | None:
    """What is wrong with the lines of `data`, a head or the beginning of one, if anything is.

    Args:
        at, number: where the first line begins that was not looked at, and which line of the head it is.
    """
    while at < len(data):
        end = data.find(b"\r\n", at)
        whole = end >= 0
        if not whole:
            end = len(data) - data.endswith(b"\r")
        fault = _in_bytes(data, at, end, number, limits)
        if fault is None and whole:
            line = data[at:end]
            fault = _in_start(line) if number == 1 else _in_field(line, number, limits.fields)
        if fault is not None or not whole:
            return fault
        at, number = end + 2, number + 1
    return None


def _in_bytes(data: bytes, at: int, end: int, number: int, limits: RequestLimits) -> Refused | None:
    """A byte that may not be in any head, or one too many, in the line from `at` to `end`."""
    broken = BROKEN.search(data, at, end + 2)
    position = broken.start() if broken is not None else len(data)
    most = limits.line if number == 1 else limits.field
    if len(data) > limits.head and limits.head < min(end + 2, position):
        return Refused(431, "size", f"the head is over {limits.head} bytes, in line {number}")
    if end - at > most and at + most < position:
        if number == 1:
            return Refused(414, "size", f"the request line is over {most} bytes")
        return Refused(431, "size", f"the field in line {number} is over {most} bytes")
    if broken is None:
        return None
    names = {b"\r": "a CR without LF", b"\n": "an LF without CR"}
    what = names.get(broken[0]) or f"a control character, 0x{broken[0].hex()}"
    hint = "; is this TLS, sent to a plain port?" if data[0] == 0x16 else ""
    return Refused(400, "syntax", f"line {number} has {what}, at byte {position - at + 1}{hint}")


def _in_start(line: bytes) -> Refused | None:
    if START.fullmatch(line + b"\r\n"):
        method = line.split(b" ", 1)[0]
        return None if method in METHODS else Refused(501, "method", f"the method {_shown(method)} is not understood")
    if line == b"PRI * HTTP/2.0":
        return Refused(505, "version", "this is HTTP/2; only HTTP/1.1 is understood here")
    parts = line.split(b" ")
    if TOKEN.fullmatch(parts[0]) is None:
        return Refused(400, "syntax", f"the request line begins with {_shown(parts[0])}, which is no method")
    if len(parts) == 2 and _TARGET.fullmatch(parts[1]):
        return Refused(505, "version", "the request line has no version, as in HTTP/0.9; write HTTP/1.1 at its end")
    if len(parts) != 3 or not parts[1]:
        return Refused(400, "syntax", "the request line is not method, target and version with one space between each")
    return _in_parts(*parts)


def _in_parts(method: bytes, target: bytes, version: bytes) -> Refused:
    if not _VERSION.fullmatch(version):
        return Refused(
            400, "syntax", f"the request line ends with {_shown(version)}, which is no version as HTTP/1.1 is"
        )
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        return Refused(505, "version", f"{version.decode()} is not understood; only HTTP/1.1 and 1.0 are")
    if b"#" in target:
        return Refused(400, "target", "the target has a fragment (`#`), which is not sent (RFC 9112, 3.2)")
    if not _TARGET.fullmatch(target):
        return Refused(400, "target", "the target has a tab or bytes that are not ASCII; encode them as %XX")
    return Refused(501, "method", f"the method {_shown(method)} is not understood")


def _in_field(line: bytes, number: int, most: int) -> Refused | None:
    if not line:
        return None
    if number - 1 > most:
        return Refused(431, "size", f"the request has more than {most} fields")
    name, colon, _ = line.partition(b":")
    where = f"line {number} of the head"
    if line[0] in b" \t":
        return Refused(400, "syntax", f"{where} begins with a space: fields may not be folded (RFC 9112, 5.2)")
    if not colon:
        return Refused(400, "syntax", f"{where} has no colon: {_shown(line)}")
    if TOKEN.fullmatch(name):
        if b"\t" in line and name.lower() in _UNTABBED:
            return Refused(400, "syntax", f"{where} has a tab, which servers disagree on in {name.decode()}")
        return None
    if name.endswith((b" ", b"\t")):
        return Refused(400, "syntax", f"{where} has a space before the colon: {_shown(name)} (RFC 9112, 5.1)")
    return Refused(400, "syntax", f"{where} has a name that is no token: {_shown(name)}")


def _shown(value: bytes) -> str:
    return f"`{value[:80].decode('ascii', 'backslashreplace')}`"

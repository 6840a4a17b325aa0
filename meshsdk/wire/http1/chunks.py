"""Reads a request's chunked body (RFC 9112, 7.1), to its last byte and no further: the next request may follow at once.

Here and not in llhttp, which does not say where in the bytes a message ended.

Rule 1  What parsers are known to differ in is refused: any space around a chunk's size, LF alone, more than 16 digits,
        an extension that does not have the form of one, a trailer that frames or routes.
Rule 2  Of the trailers only those are kept that cannot change what a request means (RFC 9110, 6.5.1).
"""

from __future__ import annotations

import re
from typing import Final

from meshsdk.wire.http1.fields import CONTROL, TOKEN
from meshsdk.wire.http1.limits import RequestLimits
from meshsdk.wire.http1.refused import Refused

__all__ = ["Chunks"]

_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_SIZE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:;" + TOKEN.pattern + rb"(?:=(?:" + TOKEN.pattern + rb"|" + _QUOTED + rb"))?)*\r\n"
)
_HEX: Final = re.compile(rb"[0-9A-Fa-f]+")
_LARGEST: Final = 2**63 - 1

_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding", b"host", b"trailer"))
_UNSAFE: Final = frozenset((
    b"age", b"authorization", b"baggage", b"cache-control", b"connection", b"cookie", b"date", b"expect", b"expires",
    b"forwarded", b"grpc-timeout", b"keep-alive", b"location", b"max-forwards", b"origin", b"pragma", b"range",
    b"referer", b"te", b"traceparent", b"tracestate", b"true-client-ip", b"upgrade", b"vary", b"via", b"warning",
    b"x-real-ip", b"x-request-id", b"set-cookie", b"retry-after", b"www-authenticate",
))  # fmt: skip
_UNSAFE_PREFIXES: Final = (b"accept", b"content-", b"if-", b"proxy-", b"x-envoy-", b"x-forwarded-")
_HARMLESS: Final = frozenset((b"content-md5", b"content-digest"))

_SIZES: Final = 0
_DATA: Final = 1
_BREAK: Final = 2
_TRAILERS: Final = 3


class Chunks:
    """One body as it comes in.

    Attributes:
        total: bytes of the body so far.
        done: the last byte of the message is here.
    """

    __slots__ = ("_fields", "_left", "_limits", "_line", "_overhead", "_state", "done", "total")

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._state = _SIZES
        self._left = 0
        self._line = b""
        self._overhead = 0  # bytes of lines, less 16 for each chunk
        self._fields = 0
        self.total = 0
        self.done = False

    def read(self, data: bytes, at: int, pieces: list[bytes], trailers: list[tuple[bytes, bytes]]) -> int:
        """Read on from `at` and return where that ended: behind the message, or where `data` ends.

        Raises:
            Refused: this is no chunked body.
        """
        size = len(data)
        while at < size and not self.done:
            if self._state == _SIZES and not self._line:
                end = self._whole(data, at, pieces)
                at = end or self._take_line(data, at, trailers)
            elif self._state == _DATA:
                end = min(at + self._left, size)
                pieces.append(data[at:end])
                self.total += end - at
                self._left -= end - at
                if not self._left:
                    self._state = _BREAK
                at = end
            else:
                at = self._take_line(data, at, trailers)
        return at

    def _whole(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Take a chunk without extensions that is here from its size to its end, as most are; 0 where it is not."""
        line = data.find(b"\r\n", at, at + 18)
        digits = data[at:line] if line > 0 else b""
        if not _HEX.fullmatch(digits):
            return 0
        begin, length = line + 2, int(digits, 16)
        end = begin + length
        if not length or data[end : end + 2] != b"\r\n":
            return 0
        pieces.append(data[begin:end])
        self.total += length
        self._overhead += begin - at - 16
        return end + 2

    def _take_line(self, data: bytes, at: int, trailers: list[tuple[bytes, bytes]]) -> int:
        end = data.find(b"\n", at) + 1
        line = self._line + (data[at:end] if end else data[at:])
        if self._state == _BREAK:
            if not b"\r\n".startswith(line):
                raise Refused(400, "framing", f"a chunk is followed by {line[:16]!r}, not by CR and LF")
        else:
            extra = self._overhead + len(line) - 16 - 2 * self.total
            if extra > self._limits.framing:
                text = f"more than {self._limits.framing} bytes of chunk sizes, extensions or trailers"
                raise Refused(400, "framing", text)
        if not end:
            self._line = line
            return len(data)
        self._line = b""
        if self._state == _SIZES:
            self._begin(line)
        elif self._state == _BREAK:
            self._state = _SIZES
        else:
            self._trailer(line, trailers)
        return end

    def _begin(self, line: bytes) -> None:
        """A line with a chunk's size."""
        match = _SIZE.fullmatch(line)
        size = int(match[1], 16) if match is not None else -1
        if not 0 <= size <= _LARGEST:
            raise Refused(400, "framing", f"{line[:40]!r} is no size of a chunk (RFC 9112, 7.1)")
        self._overhead += len(line) - 16
        self._left = size
        self._state = _DATA if size else _TRAILERS

    def _trailer(self, line: bytes, trailers: list[tuple[bytes, bytes]]) -> None:
        if line == b"\r\n":
            self.done = True
            return
        name, colon, value = line[:-2].partition(b":")
        if not (colon and line.endswith(b"\r\n") and TOKEN.fullmatch(name)) or CONTROL.search(value):
            raise Refused(400, "syntax", f"{line[:40]!r} is no field, among the trailers")
        self._fields += 1
        if self._fields > self._limits.fields:
            raise Refused(431, "size", f"the body has more than {self._limits.fields} trailers")
        self._overhead += len(line)
        kind = name.lower().replace(b"_", b"-")
        if kind in _FRAMING:
            raise Refused(400, "framing", f"the trailers have {kind.decode()}, which belongs into the head")
        if kind in _HARMLESS or not (kind in _UNSAFE or kind.startswith(_UNSAFE_PREFIXES)):
            trailers.append((name, value.strip(b" \t")))

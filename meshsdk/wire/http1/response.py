"""Reads replies from bytes, in whatever pieces they come; llhttp parses, this decides what is let through.

Rule 1  llhttp is strict by default: obs-fold, bare CR or LF, a space before the colon, two lengths, a length beside a
        transfer coding and a sign or comma in a length are refused. Refused here besides: what is not HTTP/1.0 or 1.1
        (llhttp reads RTSP too), a transfer coding other than `chunked`, and what exceeds `Limits`.
Rule 2  The end of each head is found before llhttp sees what follows it. So a reply to HEAD ends where it must, bytes
        after 101 are nobody's but the upgrade's, and every head's size is exact.
Rule 3  A large body whose length is known, or that ends with the connection, is counted here and not parsed: llhttp has
        nothing to find in it, and would copy it.
Rule 4  Bytes beyond a complete reply belong to no request: the reply stands, and the connection is not used again.
"""

from __future__ import annotations

import re
from math import inf
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from meshsdk.wire.http1.limits import Limits

__all__ = ["Incoming", "ProtocolError", "ResponseReader"]

_HEAD_END: Final = b"\r\n\r\n"
_MODERN: Final = b"HTTP/1.1 "  # what nearly all begin with: llhttp makes a text of the version anew each time
_SPACE: Final = 0x20
_REASON: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
# Of the largest length llhttp takes, 2**64 - 1. It takes any number of zeros before that, which int does not.
_DIGITS: Final = 20

# How a chunked body ends: a line that is not empty, of the last chunk or a trailer, and one that is.
_LAST_LINE: Final = re.compile(rb"[^\r\n]\r\n\r\n")
_DEFAULTS: Final = Limits()

# From how many bytes on the rest of a body is not parsed: below, making another parser costs more than the copy.
_BULK: Final = 4 * 1024

# What servers write right behind the head, though often in a piece of its own.
_SHORT: Final = 16 * 1024

# Bytes from which on a piece is handed over as it came: joined with the next, it would be copied.
_LARGE: Final = 16 * 1024


class ProtocolError(Exception):
    """The bytes are no HTTP/1.1 reply, or exceed a limit; the message says which."""


class Incoming:
    """One reply as it comes in; the reader fills it, and whoever waits for it reads it.

    Attributes:
        status: 0 until the head is complete.
        version: `1.1` or `1.0`.
        headers: header fields in the order and case they came in.
        trailers: those after a chunked body.
        pieces: of the body, that nobody took yet, in order.
        complete: the last byte is here.
        surplus: after an upgrade (101): bytes of the new protocol that came with the head.
    """

    __slots__ = ("complete", "headers", "pieces", "reason", "status", "surplus", "trailers", "version")

    def __init__(self) -> None:
        self.status = 0
        self.reason = b""
        self.version = "1.1"
        self.headers: list[tuple[bytes, bytes]] = []
        self.trailers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.complete = False
        self.surplus = b""

    def interim(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """An interim reply (1xx) has come, before the one that is filled in here; 101 is none. Must not raise."""

    def whole(self) -> bytes | None:
        """All of the body, where it is here already and nobody has begun to read it; else None."""
        if not self.complete:
            return None
        pieces = self.pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def take(self) -> bytes:
        """The next of the body, of which there is something: what came in small pieces, in one."""
        pieces = self.pieces
        if len(pieces) == 1 or len(pieces[0]) >= _LARGE:
            return pieces.pop(0)
        joined = b"".join(pieces)
        pieces.clear()
        return joined


class ResponseReader:
    """The replies of one connection, one after the other.

    Attributes:
        reusable: once the reply is complete: whether another request may follow on the connection.
        continued: the server said `100 Continue` to the request at hand.
        buffered: bytes of the body that came and were not taken yet, by whoever keeps this count.
    """

    __slots__ = (
        "_begun",
        "_bulk",
        "_chunked",
        "_chunks",
        "_fields",
        "_framing",
        "_head_only",
        "_into",
        "_length",
        "_limits",
        "_modern",
        "_parser",
        "_reason",
        "_size",
        "_tail",
        "_total",
        "buffered",
        "continued",
        "reusable",
    )

    def __init__(self, limits: Limits = _DEFAULTS) -> None:
        self._limits = limits
        self._parser: HttpResponseParser | None = None
        self._into: Incoming = Incoming()
        self.reusable = False
        self.buffered = 0

    def expect(self, method: str, into: Incoming) -> None:
        """The next bytes are the reply to a request with `method`; put it into `into`."""
        self._into = into
        self._fields = into.headers
        self._head_only = method == "HEAD"
        self._begun = self._modern = False
        self._chunked = False
        self._reason = b""
        self._tail = b""
        self._bulk = 0  # bytes still to come that are not parsed
        self._length = -1  # what Content-Length says; -1 as long as it says nothing
        self._size = self._framing = self._chunks = self._total = self.buffered = 0
        self.reusable = False
        self.continued = False
        if self._parser is None:
            self._parser = HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Read on; raises ProtocolError, after which nothing more can be read."""
        into = self._into
        if not into.status:
            data = self._feed_heads(data)
        if not data:
            return
        if into.complete:
            self.reusable = False
            if into.status == 101:
                into.surplus += data
            return
        if not self._bulk and self._length - self._total > _BULK and not self._chunked:
            self._stop_parsing()
        if self._bulk:
            self._take(data)
            return
        before = self._total
        self._parse(data)
        framing = len(data) - (self._total - before)
        if self._chunked:
            self._check_chunks(data, framing)
        elif into.complete and framing:
            self.reusable = False

    def ended(self) -> bool:
        """The server closed; says whether the reply is complete with that (RFC 9112, 6.3: a body without a length)."""
        into = self._into
        if not into.complete and into.status and not self._chunked and self._length < 0:
            into.complete = True
            self.reusable = False
        return into.complete

    def left(self) -> float:
        """Bytes of the body that are still to come; chunks do not say, so they count as none, and inf has no end."""
        if self._chunked:
            return 0
        return inf if self._length < 0 else self._length - self._total

    @property
    def short(self) -> bool:
        """Whether all of the body is little, and is still to come: who waits for the head may as well wait for it."""
        return 0 <= self._length <= _SHORT and not (self._into.complete or self._chunked)

    def close(self) -> None:
        """Let go of the parser, which holds on to us."""
        self._parser = None

    def _check_chunks(self, data: bytes, framing: int) -> None:
        """Look for what llhttp skips after a reply without a word, empty lines, and bound what is not the body."""
        self._tail = (self._tail + data[-5:])[-5:]
        if self._into.complete and not _LAST_LINE.fullmatch(self._tail):
            self.reusable = False
            return
        self._framing += framing
        if self._framing - 16 * self._chunks - 2 * self._total > self._limits.framing:
            raise ProtocolError(f"more than {self._limits.framing} bytes of chunk extensions or trailers")

    def _stop_parsing(self) -> None:
        """What is still to come is much, and has no structure."""
        assert self._parser is not None
        self._bulk = self._length - self._total
        self.reusable = self._kept_alive(self._parser)  # valid once the reply is complete
        self._parser = None

    def _take(self, data: bytes) -> None:
        into = self._into
        if len(data) > self._bulk:
            data = data[: self._bulk]
            self.reusable = False
        size = len(data)
        self._bulk -= size
        self._total += size
        self.buffered += size
        into.pieces.append(data)
        into.complete = not self._bulk

    def _feed_heads(self, data: bytes) -> bytes:
        """Feed up to the end of the reply's head, past interim ones, and return the rest."""
        while data and not self._into.status:
            if not self._begun:
                if data[0] != 0x48:  # "H"
                    raise ProtocolError(f"the reply begins with {data[:16]!r}, which is no HTTP")
                self._begun = True
                self._modern = data.startswith(_MODERN)
            end = self._head_end(data)
            part = data if end < 0 else data[:end]
            self._size += len(part)
            if self._size > self._limits.head:
                raise ProtocolError(f"the reply's head is over {self._limits.head} bytes")
            self._parse(part)
            if end < 0:
                self._tail = (self._tail + part)[-3:]
                return b""
            self._begun, self._tail, data = False, b"", data[end:]
        return data

    def _head_end(self, data: bytes) -> int:
        """Where the head ends in `data`, -1 if later; the empty line may have begun in what came before."""
        tail = self._tail
        if tail:
            found = (tail + data[:3]).find(_HEAD_END)
            if found >= 0:
                return found + 4 - len(tail)
        found = data.find(_HEAD_END)
        return found + 4 if found >= 0 else -1

    def _parse(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            raise ProtocolError("the connection is closed")
        try:
            parser.feed_data(data)
        except HttpParserUpgrade:
            pass  # `on_headers_complete` has seen to it
        except HttpParserError as error:
            if self._into.complete:
                self.reusable = False  # what is wrong came after the reply
                return
            under = error.__context__
            raise under if isinstance(under, ProtocolError) else ProtocolError(str(error)) from error

    # --- what llhttp calls ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A head begins."""
        if self._into.complete:
            raise ProtocolError("bytes after the reply")

    def on_status(self, reason: bytes) -> None:
        """The reason phrase, or a part of it."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header field; llhttp has stripped the space before the value only."""
        if len(name) == 17 and name.lower() == b"transfer-encoding":
            self._coded(value)
        if value and value[-1] <= _SPACE:
            value = value.rstrip(b" \t")
        if len(name) == 14 and name.lower() == b"content-length":
            if len(value) > _DIGITS:
                raise ProtocolError(f"Content-Length: {value[:40]!r} has more than {_DIGITS} digits")
            if self._length < 0:
                self._length = int(value)
        (self._into.trailers if self._into.status else self._fields).append((name, value))

    def on_headers_complete(self) -> None:
        """The head is here."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        version = "1.1" if self._modern else self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise ProtocolError(f"the reply is HTTP/{version}; only 1.1 and 1.0 are understood")
        if status < 100:
            raise ProtocolError(f"the reply's status is {status:03d}")
        reason = self._reason
        if reason != b"OK" and not _REASON.fullmatch(reason):
            raise ProtocolError("the reply's reason phrase has control characters")
        limits = self._limits
        if self._size > limits.field or len(self._fields) > limits.fields:
            self._check_size()
        if status < 200 and status != 101:
            self._interim(status)
            return
        into = self._into
        into.reason = reason
        into.version = version
        into.status = status
        if self._head_only:
            self.reusable = self._allows_another() and status != 101
            into.complete = True
            self._parser = None  # llhttp would now wait for a body

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        into = self._into
        if into.complete:
            raise ProtocolError("bytes after the reply")
        into.pieces.append(piece)
        size = len(piece)
        self._total += size
        self.buffered += size

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._chunks += 1

    def on_message_complete(self) -> None:
        """The reply's last byte is here; also called for interim replies."""
        into = self._into
        if not into.status or into.complete:
            return
        parser = self._parser
        assert parser is not None
        self.reusable = self._kept_alive(parser) and into.status != 101
        into.complete = True

    def _interim(self, status: int) -> None:
        self.continued |= status == 100
        self._into.interim(status, self._fields[:])
        self._fields.clear()
        self._reason = b""
        self._length = -1
        self._chunked = False
        # RFC 9112, 6.3: it ends with its head, whatever that says; llhttp would believe its length or `close`.
        self._parser = HttpResponseParser(self)

    def _coded(self, value: bytes) -> None:
        """A Transfer-Encoding: llhttp takes the body for chunked only where no tab follows the word."""
        if self._into.status:
            raise ProtocolError("the trailers have Transfer-Encoding, which belongs into the head")
        if self._chunked or value.rstrip(b" ").lower() != b"chunked":
            raise ProtocolError(f"Transfer-Encoding: {value[:40]!r} is not understood; only `chunked`, once, is")
        self._chunked = True

    def _check_size(self) -> None:
        """The head has many fields, or room for a long one: see whether it is too much."""
        limits = self._limits
        if len(self._fields) > limits.fields:
            raise ProtocolError(f"the reply has more than {limits.fields} header fields")
        if any(len(name) + len(value) > limits.field for name, value in self._fields):
            raise ProtocolError(f"a header field of the reply is over {limits.field} bytes")

    def _kept_alive(self, parser: HttpResponseParser) -> bool:
        """In HTTP/1.0 llhttp believes Proxy-Connection too, and `keep-alive` beside `close`."""
        kept: bool = parser.should_keep_alive()
        return kept and (self._into.version == "1.1" or self._allows_another())

    def _allows_another(self) -> bool:
        """RFC 9112, 9.3, from the fields alone: llhttp thinks that a reply to HEAD without a length ends with EOF."""
        into = self._into
        options = [
            option.strip()
            for name, value in into.headers
            if name.lower() == b"connection"
            for option in value.lower().split(b",")
        ]
        if b"close" in options:
            return False
        # RFC 9112, 6.1: a chunked reply in HTTP/1.0 is faulty framing, and the connection ends with it.
        return into.version == "1.1" or (b"keep-alive" in options and not self._chunked)

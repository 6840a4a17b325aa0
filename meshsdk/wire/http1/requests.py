"""Reads the requests of one client's connection from bytes, in whatever pieces they come; llhttp parses their heads.

Rule 1  llhttp is strict, and what it lets through has to pass `understand` too, which knows what parsers differ in.
Rule 2  The end of each head is found before llhttp sees what follows it, and bodies are counted here. So it is exact
        where a request ends, also among pipelined ones, and no body is copied by a parser.
Rule 3  What came before a fault stands: it is in the queue when `Refused` is raised. After it nothing is read.
Rule 4  After `Connection: close` nothing is read either (RFC 9112, 9.6), and after CONNECT or a request for an upgrade
        nothing until it is known whose bytes they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from meshsdk.wire.http1.asked import Asked, understand
from meshsdk.wire.http1.chunks import Chunks
from meshsdk.wire.http1.faults import BROKEN, START, find_fault
from meshsdk.wire.http1.limits import RequestLimits
from meshsdk.wire.http1.refused import Refused

__all__ = ["Asked", "Refused", "RequestReader"]

_HEAD_END: Final = b"\r\n\r\n"
# A number is found in bytes in a quarter of the time.
_TAB: Final = 0x09
_LF: Final = 0x0A
_CR: Final = 0x0D
_SPACE: Final = 0x20
_NOWHERE: Final = (0, 1)
_DEFAULTS: Final = RequestLimits()


class _Fields:
    """The fields of a head, as llhttp calls them out; not the reader, with which a parser would make a circle."""

    __slots__ = ("pairs",)

    def __init__(self) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.pairs.append((name, value.rstrip() if value and value[-1] <= _SPACE else value))


class RequestReader:
    """The requests of one connection, one after the other.

    Args:
        make: makes the objects that are filled, where more is to be kept in them.

    Attributes:
        queue: requests whose head is complete, in order; the last may be incomplete. Who is done with the first takes
            it out.
        buffered: bytes of bodies that came and were not taken yet, by whoever keeps this count.
        surplus: bytes that are not parsed until `resume`: after CONNECT, after a request for an upgrade, and behind
            `limits.pipelined` requests.
    """

    __slots__ = (
        "_blank",
        "_chunks",
        "_ended",
        "_fields",
        "_held",
        "_into",
        "_left",
        "_limits",
        "_looked",
        "_make",
        "_most",
        "_parser",
        "_partial",
        "_refused",
        "_shortest",
        "_stopped",
        "buffered",
        "queue",
        "surplus",
    )

    def __init__(self, limits: RequestLimits = _DEFAULTS, make: Callable[[], Asked] = Asked) -> None:
        self._limits = limits
        self._make = make
        self._most = limits.pipelined
        self._fields = _Fields()
        self._parser: HttpRequestParser | None = None
        self._partial = bytearray()  # of a head
        self._looked = _NOWHERE  # where its first line begins that was not looked at, and which it is
        self._blank = 0  # empty lines before it
        self._into: Asked | None = None  # the request whose body comes
        self._left = 0
        self._chunks: Chunks | None = None
        self._held = False  # what comes goes to `surplus`
        self._ended = False  # what comes is nobody's
        self._stopped = False  # either
        self._refused: Refused | None = None
        self._shortest = min(limits.line, limits.field, limits.head)  # a head not longer is within each of them
        self.queue: deque[Asked] = deque()
        self.buffered = 0
        self.surplus = b""

    @property
    def mid_head(self) -> bool:
        """Bytes of a head have come that is not complete."""
        return bool(self._partial)

    @property
    def held(self) -> bool:
        """Nothing is parsed until `resume`."""
        return self._held

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises:
            Refused: what came is no request that may be forwarded; what came before it is in the queue.
        """
        if self._refused is not None:
            raise self._refused
        try:
            self._read(data)
        except Refused as refused:
            self._refused = refused
            raise

    def resume(self) -> None:
        """Parse on, `surplus` first: the upgrade or CONNECT was declined, or a request was taken from a full queue.

        Nothing happens while the request that asks for another protocol is in the queue: it may be others that were
        taken, and what is behind it must not be read as HTTP before it is declined.

        Raises:
            Refused: as `feed`.
        """
        queue = self.queue
        if not self._held or (queue and (queue[-1].upgrade or queue[-1].method == b"CONNECT")):
            return
        self._held = False
        self._stopped = self._ended
        data, self.surplus = self.surplus, b""
        self.feed(data)

    def _read(self, data: bytes) -> None:
        at, size = 0, len(data)
        while at < size:
            if self._into is not None:
                at = self._read_body(self._into, data, at)
            elif self._stopped:
                if self._held:
                    self.surplus += data[at:]
                return
            elif self._partial:
                at = self._go_on(data, at)
            elif data[at] == _CR and data.startswith(b"\r\n", at):
                self._count_blank()
                at += 2
            else:
                end = data.find(_HEAD_END, at) + 4
                if end < 4:
                    self._partial += data[at:]
                    self._look_at_part(0)
                    return
                self._begin(data if not at and end == size else data[at:end])
                at = end

    # --- heads ----------------------------------------------------------------------------------------

    def _go_on(self, data: bytes, at: int) -> int:
        """Read on in a head that has begun, whose end may have begun too."""
        partial = self._partial
        before = len(partial)
        if before == 1 and partial[0] == _CR and data[at] == _LF:
            partial.clear()
            self._count_blank()
            return at + 1
        tail = partial[-3:]
        found = (tail + data[at : at + 3]).find(_HEAD_END)
        end = at + found + 4 - len(tail) if found >= 0 else data.find(_HEAD_END, at) + 4
        if found < 0 and end < 4:
            partial += data[at:]
            self._look_at_part(before)
            return len(data)
        partial += data[at:end]
        head = bytes(partial)
        partial.clear()
        self._looked = _NOWHERE
        self._begin(head)
        return end

    def _count_blank(self) -> None:
        self._blank += 1
        if self._blank > self._limits.blank:
            raise Refused(400, "syntax", f"more than {self._limits.blank} empty lines before a request")

    def _look_at_part(self, before: int) -> None:
        """Refuse early what can become no request: a head is awaited for long, and kept meanwhile.

        Args:
            before: how many bytes of it were looked at already.
        """
        partial = self._partial
        limits = self._limits
        at, number = self._looked
        lines = partial.count(b"\n", before)
        most = limits.line if number == 1 else limits.field
        size = len(partial)
        if lines or size - at > most or size > limits.head or BROKEN.search(partial, max(before - 1, 0)):
            fault = find_fault(bytes(partial), limits, at, number)
            if fault is not None:
                raise fault
        if lines:
            self._looked = partial.rfind(b"\n") + 1, number + lines

    def _begin(self, head: bytes) -> None:
        """A head is complete."""
        # llhttp takes empty lines before the request, HTTP/0.9 with another request behind it, more spaces than one,
        # fragments and other versions.
        start = START.match(head)
        if start is None:
            raise self._explain(head, "the request line is faulty")
        fields = self._fields
        try:
            if self._parser is None:
                self._parser = HttpRequestParser(fields)
            self._parser.feed_data(head)
        except HttpParserUpgrade as upgrade:
            self._parser = None
            if upgrade.args[0] != len(head):
                raise self._explain(head, "it ends before its end") from None
        except HttpParserError:
            self._begin_anew(head)
        found, fields.pairs = fields.pairs, []
        if len(head) > self._shortest or len(found) > self._limits.fields or _TAB in head:
            self._check_lines(head)
        asked = self._make()
        asked.method, asked.target, minor = start.groups()
        asked.version = "1.1" if minor == b"1" else "1.0"
        asked.fields = found
        understand(asked)
        asked.headed = True
        self.queue.append(asked)
        self._blank = 0
        if asked.length:
            self._expect_body(asked)
            return
        asked.complete = True
        if asked.upgrade or not asked.keeps_alive or asked.method == b"CONNECT" or len(self.queue) >= self._most:
            self._stop(asked)

    def _begin_anew(self, head: bytes) -> None:
        """Parse a head that was refused: llhttp refuses any after `Proxy-Connection: close`, which says nothing."""
        self._fields.pairs.clear()
        self._parser = HttpRequestParser(self._fields)
        try:
            self._parser.feed_data(head)
        except HttpParserUpgrade:
            self._parser = None
        except HttpParserError as error:
            raise self._explain(head, str(error)) from None

    def _expect_body(self, asked: Asked) -> None:
        self._check_body(asked.length)
        self._into = asked
        self._parser = None  # it waits for the body, which it is not shown
        if asked.length > 0:
            self._left = asked.length
        else:
            self._chunks = Chunks(self._limits)

    def _check_lines(self, head: bytes) -> None:
        fault = find_fault(head, self._limits)
        if fault is not None:
            raise fault

    def _explain(self, head: bytes, words: str) -> Refused:
        """Why llhttp does not accept a head."""
        fault = find_fault(head, self._limits)
        if fault is not None:
            return fault
        start = START.match(head)
        assert start is not None
        asked = Asked()
        asked.method, asked.target, minor = start.groups()
        asked.version = f"1.{minor.decode()}"
        lines = head[start.end() - 2 : -4].split(b"\r\n")[1:]
        asked.fields = [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]
        try:
            understand(asked)
        except Refused as refused:
            return refused
        return Refused(400, "syntax", f"this is no valid request: {words}")

    # --- bodies ---------------------------------------------------------------------------------------

    def _read_body(self, asked: Asked, data: bytes, at: int) -> int:
        """Read on in the body of `asked`; where that ended."""
        chunks = self._chunks
        if chunks is not None:
            before = chunks.total
            try:
                end = chunks.read(data, at, asked.pieces, asked.trailers)
            finally:
                self.buffered += chunks.total - before
            self._check_body(chunks.total)
            complete = chunks.done
        else:
            end = min(at + self._left, len(data))
            asked.pieces.append(data[at:end])  # all of it, where it is all: that copies nothing
            self._left -= end - at
            self.buffered += end - at
            complete = not self._left
        if complete:
            self._into = self._chunks = None
            asked.complete = True
            self._stop(asked)
        return end

    def _check_body(self, size: int) -> None:
        if size > self._limits.body:
            raise Refused(413, "size", f"the body is over {self._limits.body} bytes")

    def _stop(self, asked: Asked) -> None:
        """Behind the last byte of `asked` there may be what is not to be parsed, or not yet."""
        self._ended = not asked.keeps_alive
        self._held = bool(asked.upgrade) or asked.method == b"CONNECT" or len(self.queue) >= self._most
        self._stopped = self._ended or self._held

"""W3C trace context and baggage: parsing, formatting and forwarding, without I/O.

Sources: W3C Trace Context (Recommendation, with the key grammar of level 2) and W3C Baggage. The rules that matter:

Rule 1  One `traceparent`, or none counts. Two of them, upper case hex, an id of zeros or version `ff` make it invalid.
Rule 2  A version above 00 may carry more fields after a dash; version 00 may not.
Rule 3  Without a valid `traceparent` the `tracestate` is dropped; a bad `tracestate` does not spoil the `traceparent`.
Rule 4  `baggage` stands on its own, within 64 members and 8,192 bytes; what is beyond is cut off at a member's end.
Rule 5  Who adds no span of its own forwards what came, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = [
    "TraceContext",
    "TraceParent",
    "extract",
    "format_traceparent",
    "format_tracestate",
    "parse_traceparent",
    "parse_tracestate",
    "trim_baggage",
]

Headers = Iterable[tuple[bytes, bytes]]

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]*)?")
_STATE_KEY = r"[a-z0-9][a-z0-9_\-*/@]{0,255}"
_STATE_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_STATE_MEMBER = re.compile(rf"({_STATE_KEY})=({_STATE_VALUE})")
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_BAGGAGE_VALUE = r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*"
_BAGGAGE_MEMBER = re.compile(
    rf"{_TOKEN}[ \t]*=[ \t]*{_BAGGAGE_VALUE}([ \t]*;[ \t]*{_TOKEN}([ \t]*=[ \t]*{_BAGGAGE_VALUE})?)*"
)

STATE_MEMBERS = 32  # W3C Trace Context, 3.3.1.1
BAGGAGE_MEMBERS = 64  # W3C Baggage, 3.3.2
BAGGAGE_BYTES = 8192
_NAMES = frozenset((b"traceparent", b"tracestate", b"baggage"))


@dataclass(slots=True)
class TraceParent:
    """The fields of a `traceparent` header; ids are lower case hex.

    Attributes:
        extra: what a version above 00 carries after the flags, with its dash; empty otherwise.
    """

    trace_id: str
    parent_id: str
    flags: int
    version: int = 0
    extra: str = ""


@dataclass(slots=True)
class TraceContext:
    """The trace that work belongs to: as it came in with a request, or as our own span of that request continues it.

    Attributes:
        parent: the parsed `traceparent`; None where only baggage came.
        tracestate, baggage: as they came; empty where absent or invalid.
    """

    parent: TraceParent | None
    tracestate: str = ""
    baggage: str = ""
    _headers: tuple[tuple[bytes, bytes], ...] = field(default=(), init=False, repr=False, compare=False)

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What an outgoing request gets when no span of ours is in between; written once, at the first such call."""
        if not self._headers:
            traceparent = format_traceparent(self.parent) if self.parent else ""
            pairs = (("traceparent", traceparent), ("tracestate", self.tracestate), ("baggage", self.baggage))
            self._headers = tuple((name.encode(), text.encode("latin-1")) for name, text in pairs if text)
        return self._headers

    @property
    def trace_id(self) -> str:
        """32 hex digits, empty where only baggage came."""
        return self.parent.trace_id if self.parent else ""


def parse_traceparent(text: str) -> TraceParent | None:
    """Read a `traceparent` value; None for anything the specification calls invalid."""
    match = _TRACEPARENT.fullmatch(text.strip(" \t"))
    if match is None:
        return None
    version, trace_id, parent_id, flags, extra = match.groups()
    if version == "ff" or (version == "00" and extra) or not trace_id.strip("0") or not parent_id.strip("0"):
        return None
    return TraceParent(trace_id, parent_id, int(flags, 16), int(version, 16), extra or "")


def format_traceparent(parent: TraceParent) -> str:
    """Write a `traceparent` value, of the version it was read with."""
    return f"{parent.version:02x}-{parent.trace_id}-{parent.parent_id}-{parent.flags:02x}{parent.extra}"


def parse_tracestate(text: str) -> tuple[tuple[str, str], ...] | None:
    """Read a `tracestate` value into its members, in order; None where it is invalid as a whole.

    Empty members are allowed and dropped; a repeated key or a 33rd member is not allowed.
    """
    members: dict[str, str] = {}
    for piece in text.split(","):
        member = piece.strip(" \t")
        if not member:
            continue
        match = _STATE_MEMBER.fullmatch(member)
        if match is None or match[1] in members or len(members) == STATE_MEMBERS:
            return None
        members[match[1]] = match[2]
    return tuple(members.items())


def format_tracestate(members: Sequence[tuple[str, str]]) -> str:
    """Write `tracestate` members in their order."""
    return ",".join(f"{key}={value}" for key, value in members)


def trim_baggage(text: str) -> str:
    """A `baggage` value as it came, without members that are malformed or beyond the specification's limits."""
    pieces = [piece.strip(" \t") for piece in text.split(",")]
    if len(text) <= BAGGAGE_BYTES and len(pieces) <= BAGGAGE_MEMBERS and all(map(_BAGGAGE_MEMBER.fullmatch, pieces)):
        return text
    kept: list[str] = []
    room = BAGGAGE_BYTES
    for piece in filter(_BAGGAGE_MEMBER.fullmatch, pieces):
        room -= len(piece) + bool(kept)  # the comma
        if room < 0 or len(kept) == BAGGAGE_MEMBERS:
            break
        kept.append(piece)
    return ",".join(kept)


def extract(headers: Headers) -> TraceContext | None:
    """The trace context of a request; None where it carries none that is valid.

    Args:
        headers: name and value as bytes; names in any case. Repeated `tracestate` and `baggage` are joined in order.
    """
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        # The length test spares lower() for nearly every other header: 7, 10 and 11 bytes.
        if len(name) in (7, 10, 11) and (key := name.lower()) in _NAMES:
            found.setdefault(key, []).append(value)
    return _context(found) if found else None


def _context(found: dict[bytes, list[bytes]]) -> TraceContext | None:
    parents = found.get(b"traceparent", [])
    parent = parse_traceparent(parents[0].decode("latin-1")) if len(parents) == 1 else None
    state = _joined(found, b"tracestate") if parent else ""
    if state and not parse_tracestate(state):
        state = ""
    baggage = _joined(found, b"baggage")
    baggage = trim_baggage(baggage) if baggage else ""
    return TraceContext(parent, state, baggage) if parent or baggage else None


def _joined(found: dict[bytes, list[bytes]], name: bytes) -> str:
    return b",".join(found.get(name, ())).decode("latin-1")

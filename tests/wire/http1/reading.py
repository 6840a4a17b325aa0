"""Reads one reply by the reader alone, in given pieces, and says all that came of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshsdk.wire.http1 import Incoming, Limits, ProtocolError, ResponseReader

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Read:
    """A reply as it was read; `reusable` and `complete` as of the server's FIN."""

    status: int
    reason: bytes
    version: str
    fields: Fields
    body: bytes
    trailers: Fields
    complete: bool
    reusable: bool
    surplus: bytes
    continued: bool


@dataclass(frozen=True)
class Refused:
    """The bytes were refused. In which words may depend on the pieces, that they were may not."""

    words: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refused)

    def __hash__(self) -> int:
        return 0


def read(
    pieces: Iterable[bytes], method: str = "GET", limits: Limits | None = None, fin: bool = True
) -> Read | Refused:
    """What the reply to `method` is that comes in `pieces`; with `fin`, the server closes after them."""
    into = Incoming()
    reader = ResponseReader(limits or Limits())
    reader.expect(method, into)
    try:
        for piece in pieces:
            reader.feed(piece)
    except ProtocolError as error:
        return Refused(str(error))
    reusable = into.complete and reader.reusable
    if fin:
        reader.ended()
    return Read(
        into.status,
        into.reason,
        into.version,
        into.headers,
        b"".join(into.pieces),
        into.trailers,
        into.complete,
        reusable,
        into.surplus,
        reader.continued,
    )


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`data` in pieces that end at `cuts`, which may be any numbers."""
    ends = sorted({end % (len(data) + 1) for end in cuts} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


# --- the same whole and byte by byte -------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
OLD = b"HTTP/1.0 200 OK\r\n"
CODED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SIZED = b"Content-Length: 2\r\n\r\nok"
CHUNKS = b"2\r\nok\r\n0\r\n\r\n"


def whole_and_bytewise(data: bytes, method: str = "GET", limits: Limits | None = None) -> Read | Refused:
    whole = read([data], method, limits)
    assert read(bytewise(data), method, limits) == whole
    return whole


def accepted(data: bytes, method: str = "GET", limits: Limits | None = None) -> Read:
    found = whole_and_bytewise(data, method, limits)
    assert isinstance(found, Read), found
    return found


def refused(data: bytes, method: str = "GET", limits: Limits | None = None) -> str:
    found = whole_and_bytewise(data, method, limits)
    assert isinstance(found, Refused), found
    return found.words

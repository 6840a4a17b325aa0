"""What the small applications behind real servers answer, whatever serves them; `node_app.js` answers the same."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["FIELDS", "HUGE", "LARGE", "LONG", "SMALL", "TEXT", "Answer", "answer", "pattern"]


def pattern(size: int) -> bytes:
    """Bytes whose place can be told: 251 is prime, so that no power of two repeats it."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


SMALL = b'{"charged":true}\n'
LARGE = pattern(64 * 1024)
HUGE = pattern(3 * 1024 * 1024)
TEXT = b"so much to say, and again\n" * 4000
FIELDS = [(f"x-field-{number}", f"value {number}") for number in range(100)]
LONG = "l" * 6 * 1024

_BODIES = {"/small": SMALL, "/large": LARGE, "/huge": HUGE}
_ETAG = '"one"'


@dataclass
class Answer:
    """A reply; pieces without a Content-Length are for the server to frame."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)


def answer(path: str, validator: str, body: Iterator[bytes]) -> Answer:
    """Answer a request; `body` is read only where the answer is made of it.

    Args:
        validator: the request's If-None-Match, empty without one.
    """
    if path in _BODIES:
        return _validated(_BODIES[path], validator)
    match path:
        case "/empty":
            return Answer(204)
        case "/chunked":
            return Answer(pieces=[LARGE[start : start + 5000] for start in range(0, len(LARGE), 5000)])
        case "/echo":
            return _whole(b"".join(body))
        case "/refuse":
            return Answer(413, [("content-length", "9")], [b"too much\n"])
        case "/gzip":
            packed = gzip.compress(TEXT)
            return Answer(200, [("content-encoding", "gzip"), ("content-length", str(len(packed)))], [packed])
        case "/fields":
            small = _whole(SMALL)
            return Answer(200, [*small.headers, *FIELDS, ("x-long", LONG)], small.pieces)
    return Answer(404, [("content-length", "0")])


def _whole(body: bytes) -> Answer:
    return Answer(200, [("content-length", str(len(body)))], [body])


def _validated(body: bytes, validator: str) -> Answer:
    if validator == _ETAG:
        return Answer(304, [("etag", _ETAG)])
    whole = _whole(body)
    return Answer(200, [*whole.headers, ("etag", _ETAG)], whole.pieces)

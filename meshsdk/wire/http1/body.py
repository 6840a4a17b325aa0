"""Writes the body of a message piece by piece, as long as its head says it is.

Rule 1  A body whose length is known has exactly that length: what is more is refused before it is written, as the peer
        would read it as the next message; what is missing is refused at the end.
Rule 2  A piece without bytes is written as nothing. As a chunk it would be the last one (RFC 9112, 7.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from meshsdk.wire.engine import InvalidRequest
from meshsdk.wire.http1.fields import CONTROL, TOKEN

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["CONTINUE_WITHIN", "BodyWriter", "Framing"]

# Seconds that a body waits for `100 Continue` before it is sent anyway (RFC 9110, 10.1.1 leaves it open; as curl does).
CONTINUE_WITHIN: Final = 1.0

# RFC 9110, 6.5.1: what says where a message ends, or whom it is for, comes too late after it.
_NO_TRAILERS: Final = frozenset({b"connection", b"content-length", b"host", b"trailer", b"transfer-encoding"})


class Framing:
    """How a body's end is told: by its length in bytes, or by this in the length's place."""

    CHUNKED: Final = -1


class BodyWriter:
    """One body on its way out; works on bytes only, whoever carries them.

    Args:
        length: of the body in bytes, or `Framing.CHUNKED`; a request's is `Head.length`.
        error: what is raised where the body does not fit its head. For a request that is `InvalidRequest`.
    """

    __slots__ = ("_error", "_left", "_length")

    def __init__(self, length: int, error: type[Exception] = InvalidRequest) -> None:
        self._length = length
        self._left = length
        self._error = error

    def piece(self, data: Buffer) -> bytes:
        """What to send for the next piece of the body; nothing where it has no bytes.

        Args:
            data: as the caller has it, such as bytes, a bytearray or a memoryview.

        Raises:
            InvalidRequest: the body is longer than was said. Nothing of the piece may be sent.
        """
        piece = data if isinstance(data, bytes) else bytes(memoryview(data))
        size = len(piece)
        if self._length == Framing.CHUNKED:
            return b"%x\r\n%b\r\n" % (size, piece) if size else b""
        if size > self._left:
            raise self._error(f"Content-Length is {self._length} and the body has more bytes")
        self._left -= size
        return piece

    def end(self, trailers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
        """What to send after the last piece; nothing where the length was known.

        Args:
            trailers: fields after a chunked body (RFC 9110, 6.5).

        Raises:
            InvalidRequest: the body is shorter than was said, or a trailer cannot be sent.
        """
        lines = [self._trailer(name, value) for name, value in trailers]
        if self._length == Framing.CHUNKED:
            return b"0\r\n%b\r\n" % b"".join(lines)
        if self._left:
            raise self._error(f"Content-Length is {self._length} and the body has {self._length - self._left} bytes")
        if lines:
            raise self._error("trailers follow a chunked body only, and this one has a Content-Length")
        return b""

    def _trailer(self, name: bytes, value: bytes) -> bytes:
        if not TOKEN.fullmatch(name):
            raise self._error(f"the trailer name {name!r} is no token (RFC 9110, 5.6.2)")
        if name.lower() in _NO_TRAILERS:
            raise self._error(f"{name.decode()} cannot be a trailer (RFC 9110, 6.5.1); send it as a header")
        if CONTROL.search(value):
            raise self._error(f"the trailer {name.decode()} has a control character in its value: {value[:80]!r}")
        return b"%b: %b\r\n" % (name, value)

"""The bytes of an answer of our own: an error, a health page, a refusal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from meshsdk.wire.http1.fields import TOKEN

__all__ = ["answer", "status_line"]

_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}

# RFC 9110, 8.6 and 15.4.5: neither a body nor a word about its length.
_BODILESS: Final = (204, 304)


@lru_cache(maxsize=512)
def status_line(status: int, reason: bytes = b"") -> bytes:
    """The first line of a reply; without a reason, the one the RFC gives."""
    if not 100 <= status <= 999:
        raise ValueError(f"{status} is no status: they have three digits, from 100 on")
    reason = reason or _REASONS.get(status, b"")
    if not _VALUE.fullmatch(reason):
        raise ValueError(f"the reason {reason!r} has control characters")
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


def answer(
    status: int,
    body: bytes,
    fields: Iterable[tuple[bytes, bytes]] = (),
    *,
    close: bool,
    version: str,
    head_only: bool,
) -> bytes:
    """A whole reply.

    Args:
        status: 200 to 999; interim replies have no end of their own.
        fields: besides Content-Length and Connection, which are written here.
        close: no other request is read from the connection.
        version: the client's; one of HTTP/1.0 is told that the connection stays (RFC 9112, C.2.2).
        head_only: the request was HEAD: the length is told and the body kept.

    Raises:
        ValueError: a field that would not be one.
    """
    bare = status in _BODILESS
    if status < 200 or (bare and body):
        raise ValueError(f"a reply with {status} has no body")
    parts = [status_line(status)]
    for name, value in fields:
        if not TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"the field {name!r}: {value!r} is not valid")
        if name.lower() in (b"content-length", b"connection", b"transfer-encoding"):
            raise ValueError(f"the field {name.decode()} is written here; leave it out")
        parts.append(b"%b: %b\r\n" % (name, value))
    if not bare:
        parts.append(b"content-length: %d\r\n" % len(body))
    if close:
        parts.append(b"connection: close\r\n")
    elif version == "1.0":
        parts.append(b"connection: keep-alive\r\n")
    parts.append(b"\r\n")
    if not head_only:
        parts.append(body)
    return b"".join(parts)

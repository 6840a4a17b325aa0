"""Sends a request's body that is not known as bytes, while the reply may already be on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable

from meshsdk.wire.aio.connection import Connection
from meshsdk.wire.aio.reply import AsyncioReply
from meshsdk.wire.engine import InvalidRequest
from meshsdk.wire.http1 import Framing

__all__ = ["upload"]

# How long a body waits for `100 Continue` before it is sent anyway (RFC 9110, 10.1.1 leaves it open; curl's second).
CONTINUE_WITHIN = 1.0


async def upload(
    connection: Connection, reply: AsyncioReply, body: bytes | AsyncIterable[bytes], length: int, expects: bool
) -> None:
    """Send `body`; what it raises is the caller's.

    Args:
        length: in bytes, or `Framing.CHUNKED`.
        expects: wait for `100 Continue` first; a final reply in its place ends the matter.
    """
    try:
        if expects:
            await reply.told_to_go_on(connection, CONTINUE_WITHIN)
            if reply.status:
                return
        if isinstance(body, bytes):
            connection.write(_chunk(body) + _LAST if length == Framing.CHUNKED else body)
            await connection.unstuck()
        else:
            await _stream(connection, body, length)
        connection.uploaded()
    except asyncio.CancelledError as error:
        reply.broken_off(error)
        raise
    except Exception as error:  # noqa: BLE001 - whatever the caller's body raises, the caller gets
        reply.broken(error)


async def _stream(connection: Connection, body: AsyncIterable[bytes], length: int) -> None:
    sent = 0
    async for piece in body:
        if not piece:
            continue
        sent += len(piece)
        if length != Framing.CHUNKED and sent > length:
            raise InvalidRequest(f"Content-Length is {length} and the body has more bytes")
        connection.write(_chunk(piece) if length == Framing.CHUNKED else piece)
        if connection.stuck:
            await connection.unstuck()
    if length == Framing.CHUNKED:
        connection.write(_LAST)
    elif sent < length:
        raise InvalidRequest(f"Content-Length is {length} and the body has {sent} bytes")


_LAST = b"0\r\n\r\n"


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)

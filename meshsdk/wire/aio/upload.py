"""Sends a request's body that is not known as bytes, while the reply may already be on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING

from meshsdk.wire.aio.connection import Connection
from meshsdk.wire.aio.reply import AsyncioReply
from meshsdk.wire.http1 import CONTINUE_WITHIN, BodyWriter

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["upload"]


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
                connection.last = True  # the server may wait for the body still: nothing else may follow the head
                connection.uploaded()
                return
        if isinstance(body, bytes):
            writer = BodyWriter(length)
            connection.write(writer.piece(body) + writer.end())
            await connection.unstuck()
        else:
            await _stream(connection, body, length)
        connection.uploaded()
    except asyncio.CancelledError as error:
        reply.broken_off(error)
        raise
    except Exception as error:  # noqa: BLE001 - whatever the caller's body raises, the caller gets
        reply.broken(error)


async def _stream(connection: Connection, body: AsyncIterable[Buffer], length: int) -> None:
    writer = BodyWriter(length)
    async for piece in body:
        connection.write(writer.piece(piece))
        if connection.stuck:
            await connection.unstuck()
    connection.write(writer.end())

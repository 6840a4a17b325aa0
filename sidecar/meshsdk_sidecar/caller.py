"""The service's side of one call through the sidecar: its body as it comes, and whether it still waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import httpx

__all__ = ["Caller"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Caller:
    """One caller, behind an ASGI server's `receive`.

    Args:
        has_body: whether the request announced one; without, there is nothing to wait for.
    """

    def __init__(self, receive: Receive, *, has_body: bool) -> None:
        self._receive = receive
        self._whole = asyncio.Event()
        if not has_body:
            self._whole.set()

    async def body(self) -> AsyncIterator[bytes]:
        """The body's pieces, read no faster than they are asked for.

        Raises:
            WriteError: the caller broke off.
        """
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise httpx.WriteError("the caller closed the connection before its request was complete")
            more = message.get("more_body", False)
            if piece := message.get("body", b""):
                yield piece
        self._whole.set()

    async def left(self) -> None:
        """Return when the caller has gone away. It is looked for once its request is complete."""
        await self._whole.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

"""The engine on asyncio (or uvloop): callbacks from the socket up to a reply, one future per request at most."""

from __future__ import annotations

from meshsdk.wire.aio.engine import AsyncioEngine
from meshsdk.wire.aio.reply import AsyncioReply

__all__ = ["AsyncioEngine", "AsyncioReply"]

"""The engine on blocking sockets, for threads."""

from __future__ import annotations

from meshsdk.wire.blocking.engine import BlockingEngine
from meshsdk.wire.blocking.reply import BlockingReply

__all__ = ["BlockingEngine", "BlockingReply"]

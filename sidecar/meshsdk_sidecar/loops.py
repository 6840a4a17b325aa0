"""The event loop of the processes of a sidecar."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["loop_factory"]


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed (the extra `sidecar`): it halves the cost of a small request."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop

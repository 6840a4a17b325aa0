"""The event loop of the processes of a sidecar."""

from __future__ import annotations

import asyncio

from meshsdk.wire.aio.gathered import gather

__all__ = ["new_loop"]


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop that gathers its writes; uvloop where it is installed (the extra `sidecar`): it halves the cost of a small
    request.
    """
    try:
        import uvloop
    except ImportError:
        return gather(asyncio.new_event_loop())
    return gather(uvloop.new_event_loop())

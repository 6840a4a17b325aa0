"""An ASGI application at an address, for as long as a test needs it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import uvicorn

__all__ = ["listening"]


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def listening(app, address: str, port: int) -> AsyncIterator[None]:
    """Serve while the context lasts."""
    config = uvicorn.Config(
        app,
        host=address,
        port=port,
        lifespan="off",
        log_config=None,
        log_level="error",
        proxy_headers=False,
        server_header=False,
        date_header=False,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = True
        await task

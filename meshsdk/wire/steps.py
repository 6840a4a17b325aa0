"""The `trace` extension as httpx users know it: a function that is told of each step of a send, by httpcore's names.

`<step>.started`, then `<step>.complete` or `<step>.failed`, each with a dict; the steps are `connection.connect_tcp`
(with TLS), `http11.send_request_headers` (with a body of bytes) and `http11.receive_response_headers`. A send that
finds an idle connection has no first step.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

__all__ = ["astep", "step"]


@contextmanager
def step(trace: Any, name: str, **facts: Any) -> Iterator[dict[str, Any]]:
    """Tell `trace` of one step; what is put into the dict is told at its end."""
    result: dict[str, Any] = {}
    trace(f"{name}.started", facts)
    try:
        yield result
    except BaseException as error:
        trace(f"{name}.failed", {"exception": error})
        raise
    trace(f"{name}.complete", result)


@asynccontextmanager
async def astep(trace: Any, name: str, **facts: Any) -> AsyncIterator[dict[str, Any]]:
    """The same for a `trace` that is awaited."""
    result: dict[str, Any] = {}
    await trace(f"{name}.started", facts)
    try:
        yield result
    except BaseException as error:
        await trace(f"{name}.failed", {"exception": error})
        raise
    await trace(f"{name}.complete", result)

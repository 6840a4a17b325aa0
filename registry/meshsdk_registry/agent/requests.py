"""What the dev agent's handlers share: their type, and the body of a request up to Consul's limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from meshsdk_registry.agent.blocking import Found
from meshsdk_registry.agent.bodies import Refused
from meshsdk_registry.names import MAX_VALUE

__all__ = ["Handler", "Query", "received"]

Handler = Callable[[Request], Awaitable[Response]]
Query = Callable[[Request], Found]


async def received(request: Request) -> bytes:
    """Return the body; Refused (413) for more than Consul takes."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_VALUE:
            size = request.headers.get("content-length", f"more than {MAX_VALUE}")
            raise Refused(413, f"Request body({size} bytes) too large, max size: {MAX_VALUE} bytes.")
    return body

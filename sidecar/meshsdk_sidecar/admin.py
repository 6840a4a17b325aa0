"""The sidecar's own pages: `/live`, `/ready` and `/metrics`; for loopback, never for the mesh."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from meshsdk.server.answers import Answer, method_not_allowed
from meshsdk.telemetry.metrics import Metrics
from meshsdk.telemetry.prometheus import CONTENT_TYPE, expose

__all__ = ["Admin"]

Message = MutableMapping[str, Any]


class Admin:
    """An ASGI application.

    Args:
        ready: why the sidecar is not ready; empty when it is.
    """

    def __init__(self, metrics: Metrics, ready: Callable[[], str]) -> None:
        self._metrics = metrics
        self._ready = ready

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Answer one request."""
        del receive  # a GET has nothing to read
        if scope["type"] != "http":
            return
        answer = self._answer(scope["path"]) if scope["method"] == "GET" else method_not_allowed(scope["method"])
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _answer(self, path: str) -> Answer:
        if path == "/live":
            return Answer(200, b"live\n")
        if path == "/ready":
            why_not = self._ready()
            return Answer(503 if why_not else 200, f"{why_not or 'ready'}\n".encode())
        if path == "/metrics":
            return Answer(200, expose(self._metrics.collect()).encode(), CONTENT_TYPE)
        return Answer(404, b"the pages are /live, /ready and /metrics\n")

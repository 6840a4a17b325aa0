"""Calls out of the mesh: httpx's own transport, with the trace context and the deadline of the request being served.

Proxy variables of the environment are not read here, nor by an httpx client that is given a transport: hand in
`egress=httpx.HTTPTransport(proxy=...)` where one is needed.
"""

from __future__ import annotations

from collections.abc import Callable

import httpx

from meshsdk.client.errors import ConnectDeadlineExceeded
from meshsdk.client.outgoing import with_trace
from meshsdk.telemetry.context import remaining_deadline
from meshsdk.telemetry.tracing import AttemptSpan, CallSpan, Tracing

__all__ = ["AsyncEgress", "Egress"]

# httpx's own default for each operation. Mesh clients leave timeouts to the policy, and out here there is none.
_OPERATION = 5.0


class Egress:
    """Sends to hosts outside the mesh; its transport is made at the first such call, as a TLS context costs 20 ms."""

    def __init__(self, transport: httpx.BaseTransport | None, tracing: Tracing, clock: Callable[[], float]) -> None:
        self._transport = transport
        self._tracing = tracing
        self._clock = clock

    def send(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; raises what httpx raises, and `DeadlineExceeded` when there is no time left to send it."""
        call, attempt = _begin(self._tracing, request)
        try:
            if self._transport is None:
                self._transport = httpx.HTTPTransport()
            response = self._transport.handle_request(_outgoing(request, attempt, self._clock()))
        except BaseException as error:
            _failed(call, attempt, error)
            raise
        _answered(call, attempt, response)
        return response

    def close(self) -> None:
        """Close its connections."""
        if self._transport is not None:
            self._transport.close()


class AsyncEgress:
    """The same for asyncio."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport | None, tracing: Tracing, clock: Callable[[], float]
    ) -> None:
        self._transport = transport
        self._tracing = tracing
        self._clock = clock

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; raises as `Egress.send` does."""
        call, attempt = _begin(self._tracing, request)
        try:
            if self._transport is None:
                self._transport = httpx.AsyncHTTPTransport()
            response = await self._transport.handle_async_request(_outgoing(request, attempt, self._clock()))
        except BaseException as error:
            _failed(call, attempt, error)
            raise
        _answered(call, attempt, response)
        return response

    async def aclose(self) -> None:
        """Close its connections."""
        if self._transport is not None:
            await self._transport.aclose()


def _begin(tracing: Tracing, request: httpx.Request) -> tuple[CallSpan, AttemptSpan]:
    url = request.url
    call = tracing.begin_call(url.host, request.method, url)
    return call, call.attempt(1, url.host, url.port or (443 if url.scheme == "https" else 80))


def _answered(call: CallSpan, attempt: AttemptSpan, response: httpx.Response) -> None:
    attempt.end(response.status_code, None)
    call.end(response.status_code, None, 1)


def _failed(call: CallSpan, attempt: AttemptSpan, error: BaseException) -> None:
    attempt.end(None, type(error).__qualname__ if isinstance(error, Exception) else "cancelled")
    call.end(None, error, 1)


def _outgoing(request: httpx.Request, attempt: AttemptSpan, now: float) -> httpx.Request:
    headers = with_trace(request.headers.raw, attempt.headers) if attempt.headers else request.headers.raw
    extensions = {**request.extensions, "timeout": _timeouts(request, now)}
    return httpx.Request(request.method, request.url, headers=headers, stream=request.stream, extensions=extensions)


def _timeouts(request: httpx.Request, now: float) -> dict[str, float | None]:
    given = request.extensions.get("timeout") or {}
    timeouts: dict[str, float | None] = {name: given.get(name) for name in ("connect", "read", "write", "pool")}
    if all(seconds is None for seconds in timeouts.values()):
        timeouts = dict.fromkeys(timeouts, _OPERATION)
    deadline = remaining_deadline()
    if deadline is None:
        return timeouts
    left = deadline - now
    if left <= 0:
        problem = "nothing was sent: the time for the request being served is over"
        error = ConnectDeadlineExceeded(problem, service=request.url.host, policy="none (outside the mesh)")
        error.request = request
        raise error
    return {name: left if seconds is None else min(seconds, left) for name, seconds in timeouts.items()}

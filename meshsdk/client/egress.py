"""Calls out of the mesh: the HTTP library's own transport, with the trace and the deadline of what is being served.

Proxy variables of the environment are not read here, nor by an httpx client that is given a transport: hand in
`egress=httpx.HTTPTransport(proxy=...)` where one is needed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import TYPE_CHECKING

from meshsdk.client.errors import ConnectDeadlineExceeded, EgressDenied, errors_of
from meshsdk.client.outgoing import with_trace
from meshsdk.core.plan import Plan
from meshsdk.errors import ConfigError
from meshsdk.telemetry.context import remaining_deadline
from meshsdk.telemetry.tracing import AttemptSpan, CallSpan, Tracing

if TYPE_CHECKING:
    import httpx

__all__ = ["AsyncEgress", "Egress"]

# httpx's own default for each operation. Mesh clients leave timeouts to the policy, and out here there is none.
_OPERATION = 5.0


class _Outside:
    """What both colours have in common: the library whose transport it is."""

    def __init__(self, library: ModuleType, tracing: Tracing, clock: Callable[[], float]) -> None:
        self._library = library
        self._tracing = tracing
        self._clock = clock

    def _begin(self, request: httpx.Request) -> tuple[CallSpan, AttemptSpan]:
        url = request.url
        call = self._tracing.begin_call(url.host, request.method, url)
        return call, call.attempt(1, url.host, _port(url))

    def _permit(self, request: httpx.Request, plan: Plan) -> None:
        """Raise `EgressDenied` where the policy does not let this service call the host."""
        host, port = request.url.host, _port(request.url)
        if plan.egress.permits(host, port):
            return
        problem = f"the policy lets this service call no {host} at port {port}: see `egress` in mesh/policy/_mesh"
        error = errors_of(self._library)[EgressDenied](problem, service=host, reason="egress", policy=plan.version)
        error.request = request
        raise error

    def _outgoing(self, request: httpx.Request, attempt: AttemptSpan) -> httpx.Request:
        headers = with_trace(request.headers.raw, attempt.headers) if attempt.headers else request.headers.raw
        extensions = {**request.extensions, "timeout": self._timeouts(request)}
        made: httpx.Request = self._library.Request(
            request.method, request.url, headers=headers, stream=request.stream, extensions=extensions
        )
        return made

    def _timeouts(self, request: httpx.Request) -> dict[str, float | None]:
        given = request.extensions.get("timeout") or {}
        timeouts: dict[str, float | None] = {name: given.get(name) for name in ("connect", "read", "write", "pool")}
        if all(seconds is None for seconds in timeouts.values()):
            timeouts = dict.fromkeys(timeouts, _OPERATION)
        deadline = remaining_deadline()
        if deadline is None:
            return timeouts
        left = deadline - self._clock()
        if left <= 0:
            problem = "nothing was sent: the time for the request being served is over"
            late = errors_of(self._library)[ConnectDeadlineExceeded]
            error = late(problem, service=request.url.host, policy="none (outside the mesh)")
            error.request = request
            raise error
        return {name: left if seconds is None else min(seconds, left) for name, seconds in timeouts.items()}


class Egress(_Outside):
    """Sends to hosts outside the mesh; its transport is made at the first such call, as a TLS context costs 20 ms.

    Args:
        plan: the policy of this process's own service, once it is known.

    Raises:
        ConfigError: `transport` is not the library's.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport | None,
        library: ModuleType,
        tracing: Tracing,
        clock: Callable[[], float],
        plan: Callable[[], Plan],
    ) -> None:
        super().__init__(library, tracing, clock)
        self._plan = plan
        _check(transport, library, "BaseTransport")
        self._transport = transport

    def send(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; raises what httpx raises, `EgressDenied` where the policy has it so, and `DeadlineExceeded`
        when there is no time left to send it.
        """
        call, attempt = self._begin(request)
        try:
            self._permit(request, self._plan())
            if self._transport is None:
                self._transport = self._library.HTTPTransport()
            response = self._transport.handle_request(self._outgoing(request, attempt))
        except BaseException as error:
            _failed(call, attempt, error)
            raise
        _answered(call, attempt, response)
        return response

    def close(self) -> None:
        """Close its connections."""
        if self._transport is not None:
            self._transport.close()


class AsyncEgress(_Outside):
    """The same for asyncio and, as httpx's own transport does, for trio."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | None,
        library: ModuleType,
        tracing: Tracing,
        clock: Callable[[], float],
        plan: Callable[[], Awaitable[Plan]],
    ) -> None:
        super().__init__(library, tracing, clock)
        self._plan = plan
        _check(transport, library, "AsyncBaseTransport")
        self._transport = transport

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send `request`; raises as `Egress.send` does."""
        call, attempt = self._begin(request)
        try:
            self._permit(request, await self._plan())
            if self._transport is None:
                self._transport = self._library.AsyncHTTPTransport()
            response = await self._transport.handle_async_request(self._outgoing(request, attempt))
        except BaseException as error:
            _failed(call, attempt, error)
            raise
        _answered(call, attempt, response)
        return response

    async def aclose(self) -> None:
        """Close its connections."""
        if self._transport is not None:
            await self._transport.aclose()


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _check(transport: object, library: ModuleType, base: str) -> None:
    if transport is not None and not isinstance(transport, getattr(library, base)):
        kind = type(transport)
        raise ConfigError(
            f"egress={kind.__module__}.{kind.__qualname__}: it stands beside a transport for {library.__name__}, "
            f"so it must be an {library.__name__}.{base}"
        )


def _answered(call: CallSpan, attempt: AttemptSpan, response: httpx.Response) -> None:
    attempt.end(response.status_code, None)
    call.end(response.status_code, None, 1)


def _failed(call: CallSpan, attempt: AttemptSpan, error: BaseException) -> None:
    attempt.end(None, type(error).__qualname__ if isinstance(error, Exception) else "cancelled")
    call.end(None, error, 1)

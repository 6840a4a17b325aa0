"""The httpx transports: a call to a mesh service goes through an exchange, everything else goes out as it is.

Twins, side by side; they differ in colour only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Protocol

import httpx

from meshsdk.client.body import AsyncBody, Body, abandon_forgotten
from meshsdk.client.egress import AsyncEgress, Egress
from meshsdk.client.errors import InvalidRequest, InvalidUrl, as_httpx
from meshsdk.client.names import mesh_service
from meshsdk.client.outgoing import Outgoing, facts
from meshsdk.core.model import Endpoint, Failure, Snapshot, TransportFailure
from meshsdk.drive import adrive, drive
from meshsdk.errors import CallError
from meshsdk.telemetry.context import remaining_deadline
from meshsdk.telemetry.tracing import CallSpan, Tracing
from meshsdk.wire import engine as wire
from meshsdk.wire.httpcore_engine import AsyncHttpcoreEngine, HttpcoreEngine

if TYPE_CHECKING:
    from meshsdk.core.attempt import Attempt
    from meshsdk.core.cluster import Cluster

__all__ = ["AsyncMeshTransport", "Clusters", "MeshTransport"]


class Clusters(Protocol):
    """Where clusters come from: `meshsdk.discovery.Directory`, or `meshsdk.testing.StaticDirectory`."""

    def peek(self, service: str, /) -> Cluster | None:
        """The cluster if it is known already; no lock, no waiting."""
        ...

    def cluster(self, service: str) -> Cluster:
        """The cluster, after waiting for its first snapshot if need be; raises `UnknownService` or `NoEndpoint`."""
        ...

    async def acluster(self, service: str) -> Cluster:
        """The same from asyncio."""
        ...


class _Seen:
    """Notices endpoints that are no more, by comparing with the snapshot of the service's last call."""

    def __init__(self) -> None:
        self._snapshots: dict[str, Snapshot] = {}

    def gone(self, cluster: Cluster) -> Collection[Endpoint]:
        snapshot = cluster.snapshot
        before = self._snapshots.get(cluster.service)
        if before is snapshot:
            return ()
        self._snapshots[cluster.service] = snapshot
        if before is None:
            return ()
        left = {(endpoint.address, endpoint.port) for endpoint in snapshot.endpoints}
        return [endpoint for endpoint in before.endpoints if (endpoint.address, endpoint.port) not in left]


class _Sender:
    """Sends the tries of one call, each in a span of its own; remembers how the last one failed."""

    __slots__ = ("_engine", "_outgoing", "_span", "failure", "tries")

    def __init__(self, engine: wire.Engine, outgoing: Outgoing, span: CallSpan) -> None:
        self._engine = engine
        self._outgoing = outgoing
        self._span = span
        self.failure: Failure | None = None
        self.tries = 0

    def __call__(self, attempt: Attempt) -> wire.Reply:
        endpoint = attempt.endpoint
        self.tries = attempt.number
        span = self._span.attempt(attempt.number, endpoint.address, endpoint.port)
        request, bounds = self._outgoing.request(attempt, span.headers), self._outgoing.bounds(attempt)
        try:
            reply = self._engine.send(endpoint, request, bounds)
        except TransportFailure as error:
            self.failure = error.failure
            span.end(None, error.failure.kind)
            raise
        except BaseException:
            span.end(None, "cancelled")
            raise
        span.end(reply.status, None)
        return reply


class _AsyncSender:
    """The same for asyncio."""

    __slots__ = ("_engine", "_outgoing", "_span", "failure", "tries")

    def __init__(self, engine: wire.AsyncEngine, outgoing: Outgoing, span: CallSpan) -> None:
        self._engine = engine
        self._outgoing = outgoing
        self._span = span
        self.failure: Failure | None = None
        self.tries = 0

    async def __call__(self, attempt: Attempt) -> wire.AsyncReply:
        endpoint = attempt.endpoint
        self.tries = attempt.number
        span = self._span.attempt(attempt.number, endpoint.address, endpoint.port)
        request, bounds = self._outgoing.request(attempt, span.headers), self._outgoing.bounds(attempt)
        try:
            reply = await self._engine.send(endpoint, request, bounds)
        except TransportFailure as error:
            self.failure = error.failure
            span.end(None, error.failure.kind)
            raise
        except BaseException:
            span.end(None, "cancelled")
            raise
        span.end(reply.status, None)
        return reply


class MeshTransport(httpx.BaseTransport):
    """Put under an `httpx.Client`, makes mesh services callable by name: `http://payments/charge`.

    It may be used from any number of threads. Redirects, auth, cookies and event hooks are the client's, above it.
    Time is bounded exactly where Consul gives IP addresses; the look-up of a host name blocks a thread for as long as
    the system's resolver likes.

    Args:
        directory: where services are looked up.
        tracing: makes spans; one without an SDK's provider makes none and costs next to nothing.
        engine: the HTTP engine; its own by default.
        egress: the transport for hosts outside the mesh; `httpx.HTTPTransport()` by default.
        clock, sleep: time in seconds; the clock is the one of the directory's clusters.
    """

    def __init__(
        self,
        directory: Clusters,
        *,
        tracing: Tracing | None = None,
        engine: wire.Engine | None = None,
        egress: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,  # noqa: TID251 - the one place that really waits
    ) -> None:
        self._directory = directory
        self._tracing = tracing or Tracing()
        self._engine = engine or HttpcoreEngine(clock)
        self._egress = Egress(egress, self._tracing, clock)
        self._sleep = sleep
        self._seen = _Seen()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Carry out one request.

        Raises:
            CallError: no answer; also the matching httpx exception (see `meshsdk.client.errors`).
            InvalidUrl, InvalidRequest: it cannot be sent as it is.
        """
        abandon_forgotten()
        service = _service_of(request)
        if service is None:
            return self._egress.send(request)
        span = self._tracing.begin_call(service, request.method, request.url)
        try:
            return self._call(service, request, span)
        except BaseException as error:
            span.end(None, error, _tries(error))
            raise

    def _call(self, service: str, request: httpx.Request, span: CallSpan) -> httpx.Response:
        sender = None
        try:
            cluster = self._directory.peek(service) or self._directory.cluster(service)
            if gone := self._seen.gone(cluster):
                self._engine.retire(gone)
            call = facts(request, remaining_deadline())
            limit = cluster.plan.limits.max_connections_per_endpoint
            sender = _Sender(self._engine, Outgoing(request, call, limit), span)
            exchange = cluster.exchange(call)
            reply, attempt = drive(exchange, sender, self._sleep)
        except CallError as error:
            raise as_httpx(error, request, sender.failure if sender else None) from error.__cause__
        except wire.InvalidRequest as error:
            raise InvalidRequest(str(error), request=request) from error
        body = Body(reply, request, exchange, attempt, span)
        return httpx.Response(reply.status, headers=reply.headers, stream=body, extensions=reply.extensions)

    def close(self) -> None:
        """Close every connection."""
        abandon_forgotten()
        self._engine.close()
        self._egress.close()


class AsyncMeshTransport(httpx.AsyncBaseTransport):
    """The same under an `httpx.AsyncClient`, on asyncio or uvloop, from any number of loops.

    Args:
        directory, tracing, engine, egress, clock: as for `MeshTransport`.
        sleep: waits between tries.
    """

    def __init__(
        self,
        directory: Clusters,
        *,
        tracing: Tracing | None = None,
        engine: wire.AsyncEngine | None = None,
        egress: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._directory = directory
        self._tracing = tracing or Tracing()
        self._engine = engine or AsyncHttpcoreEngine(clock)
        self._egress = AsyncEgress(egress, self._tracing, clock)
        self._sleep = sleep
        self._seen = _Seen()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Carry out one request; raises as `MeshTransport.handle_request` does."""
        abandon_forgotten()
        service = _service_of(request)
        if service is None:
            return await self._egress.send(request)
        span = self._tracing.begin_call(service, request.method, request.url)
        try:
            return await self._call(service, request, span)
        except BaseException as error:
            span.end(None, error, _tries(error))
            raise

    async def _call(self, service: str, request: httpx.Request, span: CallSpan) -> httpx.Response:
        sender = None
        try:
            cluster = self._directory.peek(service) or await self._directory.acluster(service)
            if gone := self._seen.gone(cluster):
                await self._engine.retire(gone)
            call = facts(request, remaining_deadline())
            limit = cluster.plan.limits.max_connections_per_endpoint
            sender = _AsyncSender(self._engine, Outgoing(request, call, limit), span)
            exchange = cluster.exchange(call)
            reply, attempt = await adrive(exchange, sender, self._sleep)
        except CallError as error:
            raise as_httpx(error, request, sender.failure if sender else None) from error.__cause__
        except wire.InvalidRequest as error:
            raise InvalidRequest(str(error), request=request) from error
        body = AsyncBody(reply, request, exchange, attempt, span)
        return httpx.Response(reply.status, headers=reply.headers, stream=body, extensions=reply.extensions)

    async def aclose(self) -> None:
        """Close every connection of the running loop; those of other loops close when their loop ends."""
        abandon_forgotten()
        await self._engine.aclose()
        await self._egress.aclose()


def _service_of(request: httpx.Request) -> str | None:
    try:
        return mesh_service(request.url)
    except InvalidUrl as error:
        error.request = request
        raise


def _tries(error: BaseException) -> int:
    return error.attempts if isinstance(error, CallError) else 0

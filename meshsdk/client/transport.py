"""The transports: a call to a mesh service goes through an exchange, everything else goes out as it is.

Twins, side by side; they differ in colour only. `Calling` and `AsyncCalling` know no HTTP library: `MeshTransport` and
`AsyncMeshTransport` put them on httpx, `library(httpx2)` on httpx2.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, Protocol

import anyio
import httpx

from meshsdk.client import engines, warming
from meshsdk.client.body import AsyncBody, Body, abandon_forgotten, forgotten
from meshsdk.client.egress import AsyncEgress, Egress
from meshsdk.client.engines import DEFAULT, EngineName
from meshsdk.client.errors import Errors, InvalidRequest, InvalidUrl, errors_of
from meshsdk.client.names import NoName, destination
from meshsdk.client.outgoing import facts
from meshsdk.client.response import AsyncResponse, Response
from meshsdk.client.tries import AsyncTries, Tries
from meshsdk.core.retirement import Retirement
from meshsdk.drive import adrive, drive
from meshsdk.errors import CallError, ConfigError
from meshsdk.identity.securing import Securing
from meshsdk.runs import Run
from meshsdk.telemetry.context import remaining_deadline
from meshsdk.telemetry.tracing import CallSpan, Tracing
from meshsdk.wire import engine as wire
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.blocking import BlockingEngine

if TYPE_CHECKING:
    from meshsdk.core.cluster import Cluster
    from meshsdk.core.plan import Plan

__all__ = ["AsyncCalling", "AsyncMeshTransport", "Calling", "Clusters", "MeshTransport"]


class Clusters(Protocol):
    """Where clusters come from: `meshsdk.discovery.Directory`, or `meshsdk.testing.StaticDirectory`."""

    def peek(self, service: str, /) -> Cluster | None:
        """The cluster if it is known already; no lock, no waiting."""
        ...

    def cluster(self, service: str) -> Cluster:
        """The cluster, after waiting for its first snapshot if need be; raises `UnknownService` or `NoEndpoint`."""
        ...

    async def acluster(self, service: str) -> Cluster:
        """The same from asyncio or trio."""
        ...

    def settled_plan(self) -> Plan:
        """The policy of this process's own service, after waiting until it is known if need be."""
        ...

    async def asettled_plan(self) -> Plan:
        """The same from asyncio or trio."""
        ...


class _Library:
    """What both colours have in common: the library they stand on, its names on the path of a call resolved once."""

    library: ClassVar[ModuleType]
    _errors: ClassVar[Errors]
    _security: Securing | None

    def _destination(self, request: httpx.Request) -> tuple[str | None, bytes]:
        """The mesh service `request` is for, None for a host outside the mesh, and the raw path."""
        if not isinstance(request, self.library.Request):
            raise self._stranger(request)
        try:
            return destination(request.url)
        except NoName as error:
            raise self._errors[InvalidUrl](str(error), request=request) from None

    def _stranger(self, request: object) -> ConfigError:
        own, theirs = self.library.__name__, type(request).__module__.partition(".")[0]
        return ConfigError(
            f"this transport is for {own} and was called by a client of {theirs}: make it with "
            f"mesh.transport(library={theirs}) or mesh.async_transport(library={theirs})"
        )

    def _told(
        self, error: BaseException, request: httpx.Request, span: CallSpan, tries: Tries | AsyncTries | None
    ) -> BaseException:
        """End the call that `error` ended, and return what its caller is told: an error of the library."""
        attempts = 0
        if isinstance(error, CallError):
            attempts = error.attempts
            error = self._errors.matching(error, request, tries.failure if tries else None)
        elif isinstance(error, wire.InvalidRequest):
            error = self._errors[InvalidRequest](str(error), request=request)
        span.end(None, error, attempts)
        return error


class Calling(_Library):
    """Carries calls out, blocking.

    It may be used from any number of threads. Redirects, auth, cookies and event hooks are the client's, above it.
    Time is bounded exactly where Consul gives IP addresses; the look-up of a host name blocks a thread for as long as
    the system's resolver likes.

    Args:
        directory: where services are looked up.
        tracing: makes spans; one without an SDK's provider makes none and costs next to nothing.
        security: says how connections are secured; None leaves them in clear text.
        engine: the HTTP engine: by name; made of a transport of the library's that is handed in here; or made already.
        egress: the transport for hosts outside the mesh; the library's `HTTPTransport()` by default.
        clock, sleep: time in seconds; the clock is the one of the directory's clusters.

    Raises:
        ConfigError: there is no engine of that name, or `egress` is of another library.
    """

    _body: ClassVar[type[Body]]
    _response: ClassVar[type[Response]]

    def __init__(
        self,
        directory: Clusters,
        *,
        tracing: Tracing | None = None,
        security: Securing | None = None,
        engine: wire.Engine | EngineName | str = DEFAULT,
        egress: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,  # noqa: TID251 - the one place that really waits
    ) -> None:
        self._directory = directory
        self._tracing = tracing or Tracing()
        self._security = security
        self._engine = engines.engine(engine, self.library, clock, security)
        self._egress = Egress(egress, self.library, self._tracing, clock, directory.settled_plan)
        self._sleep = sleep
        self._retirement = Retirement()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Carry out one request.

        Raises:
            CallError: no answer; also the matching httpx exception (see `meshsdk.client.errors`).
            InvalidUrl, InvalidRequest: it cannot be sent as it is.
            ConfigError: it is another library's request.
        """
        if forgotten:
            abandon_forgotten()
        service, raw_path = self._destination(request)
        if service is None:
            return self._egress.send(request)
        span = self._tracing.begin_call(service, request.method, request.url)
        tries = None
        try:
            cluster = self._directory.peek(service) or self._first(service)
            if gone := self._retirement.due(cluster, self._security.generation if self._security else 0):
                self._engine.retire(gone, service)
            call = facts(request, remaining_deadline(), raw_path)
            tries = Tries(request, call, cluster, self.library.ByteStream, raw_path)
            tries.engine, tries.span, tries.failure = self._engine, span, None
            exchange = cluster.exchange(call)
            reply, attempt = drive(exchange, tries.send, self._sleep)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised on
            raise self._told(error, request, span, tries) from _cause(error)
        body = self._body(reply, request, exchange, attempt, span)
        return self._response.of(reply, body)

    def warm(self, service: str, connections: int = 1) -> None:
        """Open connections to every healthy instance of `service`, so that its first calls find some.

        Waits until they stand. An instance that cannot be reached is logged, and left to the calls. A connection nobody
        uses is kept for 4 s: do this when calls are about to come, such as before the process says that it is ready.

        Args:
            connections: to each instance; those that are open count, and no more are opened than `limits` allow.

        Raises:
            ConfigError: the engine is not our own, it is no number, or no service can have this name.
            CallError: nothing is known of the service, or it has no healthy instance.
        """
        engine = warming.check(self._engine, BlockingEngine, connections)
        try:
            cluster = self._directory.peek(service) or self._first(service)
            if gone := self._retirement.due(cluster, self._security.generation if self._security else 0):
                engine.retire(gone, service)
            warming.warm(engine, cluster, connections)
        except CallError as error:
            raise self._errors.matching(error, None) from error.__cause__

    def _first(self, service: str) -> Cluster:
        """The cluster of a service that was not called before, once our own identity had time to come."""
        if self._security is not None:
            self._security.wait_ready()
        return self._directory.cluster(service)

    def close(self) -> None:
        """Close every connection."""
        abandon_forgotten()
        self._engine.close()
        self._egress.close()


class AsyncCalling(_Library):
    """The same on asyncio or uvloop, from any number of loops; on trio too where the engine is httpx's ("httpcore")
    or a transport that was handed in.

    Args:
        directory, tracing, security, engine, egress, clock: as for `Calling`.
        sleep: waits between tries.
    """

    _body: ClassVar[type[AsyncBody]]
    _response: ClassVar[type[AsyncResponse]]

    def __init__(
        self,
        directory: Clusters,
        *,
        tracing: Tracing | None = None,
        security: Securing | None = None,
        engine: wire.AsyncEngine | EngineName | str = DEFAULT,
        egress: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._directory = directory
        self._tracing = tracing or Tracing()
        self._security = security
        self._engine = engines.async_engine(engine, self.library, clock, security)
        self._loop = engines.loop_of(self._engine)
        self._egress = AsyncEgress(egress, self.library, self._tracing, clock, directory.asettled_plan)
        self._sleep = sleep
        self._retirements: dict[Run, Retirement] = {}  # each loop has connections of its own to let go of

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Carry out one request; raises as `Calling.handle_request` does, and ConfigError where no loop runs
        that the engine knows.
        """
        if forgotten:
            abandon_forgotten()
        service, raw_path = self._destination(request)
        if service is None:
            return await self._egress.send(request)
        span = self._tracing.begin_call(service, request.method, request.url)
        tries = None
        try:
            loop = self._loop()
            cluster = self._directory.peek(service) or await self._first(service)
            if gone := self._retirement_in(loop).due(cluster, self._security.generation if self._security else 0):
                await self._engine.retire(gone, service)
            call = facts(request, remaining_deadline(), raw_path)
            tries = AsyncTries(request, call, cluster, self.library.ByteStream, raw_path)
            tries.engine, tries.span, tries.failure = self._engine, span, None
            exchange = cluster.exchange(call)
            reply, attempt = await adrive(exchange, tries.send, self._sleep)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised on
            raise self._told(error, request, span, tries) from _cause(error)
        body = self._body(reply, request, exchange, attempt, span, loop=loop)
        return self._response.of(reply, body)

    async def warm(self, service: str, connections: int = 1) -> None:
        """Begin to open connections to every healthy instance of `service`, in the running loop.

        Does not wait for them; one that cannot be opened is not told, and left to the calls. Else as `Calling.warm`.
        """
        engine = warming.check(self._engine, AsyncioEngine, connections)
        loop = self._loop()
        try:
            cluster = self._directory.peek(service) or await self._first(service)
            if gone := self._retirement_in(loop).due(cluster, self._security.generation if self._security else 0):
                await engine.retire(gone, service)
            await warming.awarm(engine, cluster, connections)
        except CallError as error:
            raise self._errors.matching(error, None) from error.__cause__

    async def _first(self, service: str) -> Cluster:
        if self._security is not None:
            await self._security.await_ready()
        return await self._directory.acluster(service)

    def _retirement_in(self, loop: Run) -> Retirement:
        """This loop's; at its first call those of loops that have ended are forgotten."""
        if found := self._retirements.get(loop):
            return found
        for other in [other for other in tuple(self._retirements) if other.is_closed()]:
            self._retirements.pop(other, None)
        return self._retirements.setdefault(loop, Retirement())

    async def aclose(self) -> None:
        """Close every connection of the running loop; those of other loops close when their loop ends."""
        abandon_forgotten()
        with contextlib.suppress(ConfigError):  # no call was made where its loop does not run: it was refused, in words
            self._retirements.pop(self._loop(), None)
            await self._engine.aclose()
        await self._egress.aclose()


class MeshTransport(Calling, httpx.BaseTransport):
    """Put under an `httpx.Client`, makes mesh services callable by name: `http://payments/charge`; see `Calling`."""

    library: ClassVar[ModuleType] = httpx
    _errors = errors_of(httpx)
    _body = Body
    _response = Response


class AsyncMeshTransport(AsyncCalling, httpx.AsyncBaseTransport):
    """The same under an `httpx.AsyncClient`; see `AsyncCalling`."""

    library: ClassVar[ModuleType] = httpx
    _errors = errors_of(httpx)
    _body = AsyncBody
    _response = AsyncResponse


def _cause(error: BaseException) -> BaseException | None:
    """What lies under the error that is raised for `error`."""
    return error if isinstance(error, wire.InvalidRequest) else error.__cause__

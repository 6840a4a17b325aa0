"""One face for the blocking and the asyncio transport of httpx and of httpx2, so that one test can try all four."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import httpx

from meshsdk.client import DEFAULT, AsyncMeshTransport, MeshTransport, async_client, client, library
from meshsdk.core.events import AttemptEnded, CallEnded, Event
from meshsdk.core.plan import Plan
from meshsdk.policy.effective import DEFAULTS
from meshsdk.testing import StaticDirectory
from tests.wire.scripted import Server

# No pauses worth waiting for, and no ejections: with one endpoint they would only be in the way.
QUICK = replace(
    DEFAULTS,
    timeouts=replace(DEFAULTS.timeouts, request=3.0, attempt=0.5, connect=0.3, idle=0.3),
    retries=replace(DEFAULTS.retries, backoff_base=0.001, backoff_max=0.001),
)
ONCE = replace(QUICK, retries=replace(QUICK.retries, attempts=1))


class Pieces:
    """A streamed request body for both colours; counts how often it was begun."""

    def __init__(self, *pieces: Any) -> None:
        self.pieces = pieces
        self.begun = 0

    def __iter__(self) -> Iterator[bytes]:
        self.begun += 1
        yield from self.pieces


class AsyncPieces(Pieces):
    __iter__ = None  # type: ignore[assignment]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun += 1
        for piece in self.pieces:
            yield piece


class Mesh:
    """A directory with a record of what happened to the calls."""

    def __init__(self, *servers: Server | str, plan: Plan = QUICK) -> None:
        self.events: list[Event] = []
        addresses = [server if isinstance(server, str) else server.address for server in servers]
        self.directory = StaticDirectory({"payments": addresses}, plan=plan, sink=self.events.append)
        self.cluster = self.directory.cluster("payments")

    @property
    def calls(self) -> list[CallEnded]:
        return [event for event in self.events if isinstance(event, CallEnded)]

    @property
    def attempts(self) -> list[AttemptEnded]:
        return [event for event in self.events if isinstance(event, AttemptEnded)]

    def assert_at_rest(self) -> None:
        assert self.cluster.in_flight == 0
        assert all(state.inflight == 0 for state in self.cluster.states())


class Blocking:
    """`MeshTransport`, called in threads."""

    Pieces = Pieces

    def __init__(self, module: ModuleType = httpx, engine: str = DEFAULT) -> None:
        self.httpx: Any = module
        self.engine = engine
        self.errors = library(module).errors

    def transport(self, mesh: Mesh, **options: Any) -> MeshTransport:
        return library(self.httpx).MeshTransport(mesh.directory, **{"engine": self.engine, **options})

    @asynccontextmanager
    async def client(self, mesh: Mesh, **options: Any) -> AsyncIterator[Caller]:
        with client(self.transport(mesh), **options) as http:

            async def request(*arguments: Any, **given: Any) -> httpx.Response:
                return await asyncio.to_thread(http.request, *arguments, **given)

            async def begin(*arguments: Any, **given: Any) -> httpx.Response:
                return await asyncio.to_thread(lambda: http.send(http.build_request(*arguments, **given), stream=True))

            yield Caller(request, begin)

    def hook(self, do: Callable[[Any], Any]) -> Any:
        return do

    async def read(self, response: httpx.Response) -> bytes:
        return await asyncio.to_thread(response.read)

    async def pieces(self, response: httpx.Response, how: str, *arguments: Any) -> list[Any]:
        return await asyncio.to_thread(lambda: list(getattr(response, f"iter_{how}")(*arguments)))

    async def network(self, stream: Any, do: str, *arguments: Any) -> Any:
        return await asyncio.to_thread(getattr(stream, do), *arguments)

    async def some(self, response: httpx.Response) -> bytes:
        return next(response.iter_raw())

    async def close(self, response: httpx.Response) -> None:
        response.close()


class Awaiting:
    """`AsyncMeshTransport`."""

    Pieces = AsyncPieces

    def __init__(self, module: ModuleType = httpx, engine: str = DEFAULT) -> None:
        self.httpx: Any = module
        self.engine = engine
        self.errors = library(module).errors

    def transport(self, mesh: Mesh, **options: Any) -> AsyncMeshTransport:
        return library(self.httpx).AsyncMeshTransport(mesh.directory, **{"engine": self.engine, **options})

    @asynccontextmanager
    async def client(self, mesh: Mesh, **options: Any) -> AsyncIterator[Caller]:
        async with async_client(self.transport(mesh), **options) as http:

            async def begin(*arguments: Any, **given: Any) -> httpx.Response:
                return await http.send(http.build_request(*arguments, **given), stream=True)

            yield Caller(http.request, begin)

    def hook(self, do: Callable[[Any], Any]) -> Any:
        async def awaited(value: Any) -> Any:
            return do(value)

        return awaited

    async def read(self, response: httpx.Response) -> bytes:
        return await response.aread()

    async def pieces(self, response: httpx.Response, how: str, *arguments: Any) -> list[Any]:
        return [piece async for piece in getattr(response, f"aiter_{how}")(*arguments)]

    async def network(self, stream: Any, do: str, *arguments: Any) -> Any:
        return await getattr(stream, "aclose" if do == "close" else do)(*arguments)

    async def some(self, response: httpx.Response) -> bytes:
        return await anext(response.aiter_raw())

    async def close(self, response: httpx.Response) -> None:
        await response.aclose()


class Caller:
    """`request` reads the whole reply, `begin` only its head."""

    def __init__(
        self, request: Callable[..., Awaitable[httpx.Response]], begin: Callable[..., Awaitable[httpx.Response]]
    ) -> None:
        self.request = request
        self.begin = begin

    async def get(self, url: str, **options: Any) -> httpx.Response:
        return await self.request("GET", url, **options)


Colour = Blocking | Awaiting

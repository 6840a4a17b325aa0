"""The HTTP clients that are compared, all called alike: `get` reads a whole body, `stream` reads it in pieces."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import aiohttp
import httpx
import httpx2

from benchmarks.servers import Stage, identity
from meshsdk.client import AsyncMeshTransport, MeshTransport, async_client, client
from meshsdk.core.model import Endpoint, Snapshot
from meshsdk.core.plan import Plan
from meshsdk.identity.securing import TLS_META, Securing
from meshsdk.policy.effective import DEFAULTS
from meshsdk.telemetry.access_log import AccessLog
from meshsdk.telemetry.context import Inbound, current
from meshsdk.telemetry.metrics import Metrics
from meshsdk.telemetry.propagate import extract
from meshsdk.telemetry.sinks import Fanout
from meshsdk.testing import StaticDirectory

# The one place to switch: the engines that are measured.
from meshsdk.wire.aio import AsyncioEngine as AsyncEngine
from meshsdk.wire.blocking import BlockingEngine
from meshsdk.wire.engine import Bounds, Request

__all__ = [
    "ASYNC",
    "SYNC",
    "AsyncCaller",
    "AsyncHttpx",
    "Caller",
    "Httpx",
    "at",
    "begin_trace",
    "ours",
    "ours_sync",
    "stock",
]


class AsyncCaller(Protocol):
    """A client on asyncio; its methods give the number of bytes in the body."""

    async def get(self, target: str) -> int: ...

    async def stream(self, target: str) -> int: ...

    async def aclose(self) -> None: ...


class Caller(Protocol):
    """A blocking client, used from several threads."""

    def get(self, target: str) -> int: ...

    def stream(self, target: str) -> int: ...

    def close(self) -> None: ...


def begin_trace() -> None:
    """From here on calls belong to a trace, which the mesh has to pass on, as in a request that is being served."""
    traceparent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    current.set(Inbound(trace=extract([(b"traceparent", traceparent), (b"tracestate", b"vendor=1")])))


# --- httpx, httpx2, and ours under httpx --------------------------------------------------------------


class AsyncHttpx:
    def __init__(self, http: Any, base: str) -> None:
        self.http, self.base = http, base

    async def get(self, target: str) -> int:
        return len((await self.http.get(self.base + target)).content)

    async def stream(self, target: str) -> int:
        async with self.http.stream("GET", self.base + target) as response:
            return sum([len(piece) async for piece in response.aiter_bytes()])

    async def aclose(self) -> None:
        await self.http.aclose()


class Httpx:
    def __init__(self, http: Any, base: str) -> None:
        self.http, self.base = http, base

    def get(self, target: str) -> int:
        return len(self.http.get(self.base + target).content)

    def stream(self, target: str) -> int:
        with self.http.stream("GET", self.base + target) as response:
            return sum(len(piece) for piece in response.iter_bytes())

    def close(self) -> None:
        self.http.close()


def stock(module: Any) -> dict[str, Any]:
    """As it comes, but free to keep the connections it has opened: 20 by default, and it would reconnect at 64."""
    return {"limits": module.Limits(max_connections=100, max_keepalive_connections=100), "trust_env": False}


def _mesh(stage: Stage, plan: Plan, secured: bool) -> tuple[StaticDirectory, Securing | None]:
    """Three instances, the sinks that a `Mesh` has, and an identity where they are called over mutual TLS."""
    sink: Fanout[Any] = Fanout(Metrics().sink, AccessLog("bench"))
    found = [f"127.0.0.1:{port}" for port in (stage.secured if secured else stage.ports)]
    directory = StaticDirectory({"payments": found}, plan=plan, sink=sink)
    if not secured:
        return directory, None
    cluster = directory.cluster("payments")
    endpoints = tuple(replace(each, meta={TLS_META: "strict"}) for each in cluster.snapshot.endpoints)
    cluster.update(Snapshot("payments", endpoints))
    return directory, Securing(identity(stage.caller), directory.peek)


def ours(stage: Stage, plan: Plan = DEFAULTS, *, secured: bool = False) -> AsyncHttpx:
    """The mesh under httpx, by default under the built-in policy, which has every feature on."""
    directory, security = _mesh(stage, plan, secured)
    transport = AsyncMeshTransport(directory, security=security, engine=AsyncEngine(secure=security))
    return AsyncHttpx(async_client(transport), "http://payments")


def ours_sync(stage: Stage, plan: Plan = DEFAULTS, *, secured: bool = False) -> Httpx:
    """The same, blocking."""
    directory, security = _mesh(stage, plan, secured)
    transport = MeshTransport(directory, security=security, engine=BlockingEngine(secure=security))
    return Httpx(client(transport), "http://payments")


# --- aiohttp ------------------------------------------------------------------------------------------


class Aiohttp:
    def __init__(self, base: str) -> None:
        self.http, self.base = aiohttp.ClientSession(), base

    async def get(self, target: str) -> int:
        async with self.http.get(self.base + target) as response:
            return len(await response.read())

    async def stream(self, target: str) -> int:
        async with self.http.get(self.base + target) as response:
            return sum([len(piece) async for piece in response.content.iter_any()])

    async def aclose(self) -> None:
        await self.http.close()


# --- the engine alone ---------------------------------------------------------------------------------

_FIELDS = [
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"gzip, deflate"),
    (b"Connection", b"keep-alive"),
    (b"User-Agent", b"bench/1"),
]


class Sent:
    """What both colours of the engine are given: the fields a client sends, the bounds of the default policy."""

    def __init__(self, port: int) -> None:
        self.endpoint = Endpoint(str(port), "127.0.0.1", port)
        self.fields = [(b"Host", b"127.0.0.1:%d" % port), *_FIELDS]

    def parts(self, target: str) -> tuple[Endpoint, Request, Bounds]:
        now = time.monotonic()
        request = Request("GET", target.encode(), self.fields, b"", {})
        return self.endpoint, request, Bounds(now + 5, now + 15, 1.0, 300.0, max_connections=256)


class AsyncBare:
    def __init__(self, port: int) -> None:
        self.engine, self.sent = AsyncEngine(), Sent(port)

    async def get(self, target: str) -> int:
        reply = await self.engine.send(*self.sent.parts(target))
        body = b"".join([piece async for piece in reply])
        await reply.aclose()
        return len(body)

    async def stream(self, target: str) -> int:
        reply = await self.engine.send(*self.sent.parts(target))
        size = sum([len(piece) async for piece in reply])
        await reply.aclose()
        return size

    async def aclose(self) -> None:
        await self.engine.aclose()


class Bare:
    def __init__(self, port: int) -> None:
        self.engine, self.sent = BlockingEngine(), Sent(port)

    def get(self, target: str) -> int:
        reply = self.engine.send(*self.sent.parts(target))
        body = b"".join(reply)
        reply.close()
        return len(body)

    def stream(self, target: str) -> int:
        reply = self.engine.send(*self.sent.parts(target))
        size = sum(len(piece) for piece in reply)
        reply.close()
        return size

    def close(self) -> None:
        self.engine.close()


# --- the rows -----------------------------------------------------------------------------------------


def at(port: int) -> str:
    """The URL of a port in clear text."""
    return f"http://127.0.0.1:{port}"


ASYNC: dict[str, Callable[[Stage], AsyncCaller]] = {
    "httpx": lambda stage: AsyncHttpx(httpx.AsyncClient(**stock(httpx)), at(stage.ports[0])),
    "httpx2": lambda stage: AsyncHttpx(httpx2.AsyncClient(**stock(httpx2)), at(stage.ports[0])),
    "aiohttp": lambda stage: Aiohttp(at(stage.ports[0])),
    "httpx, Envoy pair": lambda stage: AsyncHttpx(httpx.AsyncClient(**stock(httpx)), at(stage.envoy)),
    "ours": ours,
    "bare engine": lambda stage: AsyncBare(stage.ports[0]),
}
SYNC: dict[str, Callable[[Stage], Caller]] = {
    "httpx": lambda stage: Httpx(httpx.Client(**stock(httpx)), at(stage.ports[0])),
    "httpx2": lambda stage: Httpx(httpx2.Client(**stock(httpx2)), at(stage.ports[0])),
    "ours": ours_sync,
    "bare engine": lambda stage: Bare(stage.ports[0]),
}

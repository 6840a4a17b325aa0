"""Real servers answer the engine, both colours: every framing they use, uploads, kept and stale connections."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from meshsdk.core.model import Endpoint, Phase, TransportFailure
from meshsdk.wire.aio import AsyncioEngine as AsyncEngine
from meshsdk.wire.blocking import BlockingEngine
from meshsdk.wire.engine import Bounds, Request
from tests.wire.apps.answers import FIELDS, HUGE, LARGE, LONG, SMALL, TEXT, pattern
from tests.wire.real_servers import KEEP_ALIVE, Started, fleet
from tests.wire.scripted import eventually

SERVERS = ("nginx", "uvicorn", "gunicorn-sync", "gunicorn-gthread", "node", "envoy")
KEEPING = tuple(name for name in SERVERS if name != "gunicorn-sync")  # which closes after every reply
MEGABYTE = pattern(1024 * 1024)


class Pieces:
    """A request body for both colours."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


@dataclass
class Answered:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Blocking:
    """Calls through the blocking engine, on a thread."""

    def __init__(self) -> None:
        self.engine = BlockingEngine()

    async def call(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> Answered:
        return await asyncio.to_thread(self._call, endpoint, request, bounds)

    def _call(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> Answered:
        reply = self.engine.send(endpoint, request, bounds)
        try:
            return answered(reply, b"".join(reply))
        finally:
            reply.close()

    async def close(self) -> None:
        self.engine.close()


class Awaiting:
    """Calls through the asyncio engine."""

    def __init__(self) -> None:
        self.engine = AsyncEngine()

    async def call(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> Answered:
        reply = await self.engine.send(endpoint, request, bounds)
        try:
            return answered(reply, b"".join([piece async for piece in reply]))
        finally:
            await reply.aclose()

    async def close(self) -> None:
        await self.engine.aclose()


def answered(reply: Any, body: bytes) -> Answered:
    return Answered(reply.status, {name.decode().lower(): value.decode() for name, value in reply.headers}, body)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Started]]:
    with fleet(Path(tmp_path_factory.mktemp("servers"))) as started:
        yield started


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, servers: dict[str, Started]) -> Started:
    return servers[request.param]


@pytest.fixture(params=[Blocking, Awaiting])
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    wire = request.param()
    yield wire
    await wire.close()


Field = tuple[bytes, bytes]


async def call(wire: Any, server: Started, path: str, *fields: Field, method: str = "GET", body: Any = b"") -> Answered:
    endpoint = Endpoint(server.name, "127.0.0.1", server.port)
    headers = [(b"Host", b"payments"), *fields]
    until = time.monotonic() + 10
    request = Request(method, path.encode(), headers, body, {})
    found: Answered = await wire.call(endpoint, request, Bounds(deadline=until, body_deadline=until))
    return found


def length(body: bytes) -> Field:
    return b"Content-Length", str(len(body)).encode()


async def goes_on(wire: Any, server: Started) -> None:
    """Whatever came before, the next reply is read from its first byte."""
    assert (await call(wire, server, "/small")).body == SMALL


# --- replies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body"), [("/small", SMALL), ("/large", LARGE), ("/huge", HUGE)])
async def test_bodies_of_a_known_length(wire: Any, server: Started, path: str, body: bytes) -> None:
    reply = await call(wire, server, path)
    assert (reply.status, reply.headers["content-length"]) == (200, str(len(body)))
    assert reply.body == body
    await goes_on(wire, server)


async def test_no_content(wire: Any, server: Started) -> None:
    reply = await call(wire, server, "/empty")
    assert (reply.status, reply.body) == (204, b"")
    await goes_on(wire, server)


async def test_head_says_a_length_and_sends_nothing(wire: Any, server: Started) -> None:
    reply = await call(wire, server, "/large", method="HEAD")
    assert (reply.status, reply.headers["content-length"], reply.body) == (200, str(len(LARGE)), b"")
    await goes_on(wire, server)


async def test_not_modified(wire: Any, server: Started) -> None:
    etag = (await call(wire, server, "/large")).headers["etag"]
    reply = await call(wire, server, "/large", (b"If-None-Match", etag.encode()))
    assert (reply.status, reply.headers["etag"], reply.body) == (304, etag, b"")
    await goes_on(wire, server)


async def test_a_chunked_body(wire: Any, server: Started) -> None:
    reply = await call(wire, server, "/chunked")
    assert (reply.status, reply.headers["transfer-encoding"].lower()) == (200, "chunked")
    assert reply.body == LARGE
    await goes_on(wire, server)


@pytest.mark.parametrize("server", ["node", "envoy"], indirect=True)
async def test_trailers_are_not_the_body(wire: Any, server: Started) -> None:
    reply = await call(wire, server, "/trailers", (b"TE", b"trailers"))
    assert (reply.status, reply.headers["trailer"]) == (200, "x-checksum")
    assert reply.body == LARGE
    await goes_on(wire, server)


@pytest.mark.parametrize("server", ["node", "nginx"], indirect=True)
async def test_a_body_that_ends_with_the_connection(wire: Any, server: Started) -> None:
    reply = await call(wire, server, "/until-close")
    assert reply.headers.keys().isdisjoint({"content-length", "transfer-encoding"})
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert reply.body == LARGE
    await goes_on(wire, server)


async def test_a_packed_body_is_not_touched(wire: Any, server: Started) -> None:
    reply = await call(wire, server, "/gzip", (b"Accept-Encoding", b"gzip"))
    assert reply.headers["content-encoding"] == "gzip"
    assert len(reply.body) < len(TEXT) // 10
    assert gzip.decompress(reply.body) == TEXT


async def test_many_fields_and_a_long_one(wire: Any, server: Started) -> None:
    sent = [(name.encode(), value.encode()) for name, value in [*FIELDS, ("x-long", LONG)]]
    reply = await call(wire, server, "/fields", *sent)
    assert reply.status == 200
    assert {name: reply.headers[name] for name, _ in FIELDS} == dict(FIELDS)
    assert reply.headers["x-long"] == LONG
    assert reply.body == SMALL


# --- uploads ------------------------------------------------------------------------------------------


async def test_an_upload_of_a_known_length(wire: Any, server: Started) -> None:
    reply = await call(wire, server, "/echo", length(MEGABYTE), method="POST", body=Pieces(MEGABYTE))
    assert (reply.status, reply.body) == (200, MEGABYTE)
    await goes_on(wire, server)


async def test_a_chunked_upload(wire: Any, server: Started) -> None:
    pieces = Pieces(*(MEGABYTE[start : start + 30_000] for start in range(0, len(MEGABYTE), 30_000)))
    reply = await call(wire, server, "/echo", (b"Transfer-Encoding", b"chunked"), method="POST", body=pieces)
    assert (reply.status, reply.body) == (200, MEGABYTE)
    await goes_on(wire, server)


async def test_expect_100_continue(wire: Any, server: Started) -> None:
    fields = (b"Expect", b"100-continue"), length(LARGE)
    reply = await call(wire, server, "/echo", *fields, method="POST", body=Pieces(LARGE))
    assert (reply.status, reply.body) == (200, LARGE)
    await goes_on(wire, server)


async def test_a_big_upload_is_refused_early(wire: Any, server: Started) -> None:
    """The answer is heard, or the failure says that the request was under way.

    gunicorn closes with the upload unread, although it may have said `keep-alive`: the kernel's RST may overtake its
    answer, and what is sent next on that connection is lost. So the next request waits until it is gone.
    """
    careless = server.name.startswith("gunicorn")
    outcome = await refusal(wire, server)
    assert outcome in ({413, Phase.WRITTEN, Phase.REPLY_STARTED} if careless else {413})
    if careless:
        await asyncio.to_thread(eventually, lambda: not server.established(), KEEP_ALIVE + 5)
    await goes_on(wire, server)


async def refusal(wire: Any, server: Started) -> int | Phase:
    """The status of the answer to 3 MiB that the server does not want, or how far the request got."""
    try:
        return (await call(wire, server, "/refuse", length(HUGE), method="POST", body=Pieces(HUGE))).status
    except TransportFailure as error:
        return error.failure.phase


# --- connections --------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", KEEPING, indirect=True)
async def test_one_connection_for_many_requests(wire: Any, server: Started) -> None:
    peers = {(await call(wire, server, "/small")).headers["x-peer"] for _ in range(20)}
    assert len(peers) == 1


@pytest.mark.parametrize("server", ["gunicorn-sync"], indirect=True)
async def test_a_server_that_closes_after_each_reply(wire: Any, server: Started) -> None:
    replies = [await call(wire, server, "/small") for _ in range(20)]
    assert {reply.headers["connection"] for reply in replies} == {"close"}
    assert len({reply.headers["x-peer"] for reply in replies}) == 20


async def test_connection_close_is_the_last_word(wire: Any, server: Started) -> None:
    last = await call(wire, server, "/small", (b"Connection", b"close"))
    assert (last.status, last.body, last.headers["connection"]) == (200, SMALL, "close")
    after = await call(wire, server, "/small")
    assert after.body == SMALL
    assert after.headers["x-peer"] != last.headers["x-peer"]


async def test_connections_that_went_stale(wire: Any, servers: dict[str, Started]) -> None:
    """Each server closes what was idle for `KEEP_ALIVE`; the next request, even a POST, does not fail for it."""
    keeping = [servers[name] for name in KEEPING]
    first = [(await call(wire, server, "/small")).headers["x-peer"] for server in keeping]
    await asyncio.to_thread(eventually, lambda: not any(server.established() for server in keeping), KEEP_ALIVE + 5)
    for server, peer in zip(keeping, first, strict=True):
        reply = await call(wire, server, "/echo", length(SMALL), method="POST", body=Pieces(SMALL))
        assert (reply.status, reply.body) == (200, SMALL)
        assert reply.headers["x-peer"] != peer

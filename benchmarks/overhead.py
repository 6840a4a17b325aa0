"""What the mesh adds to a call on top of the HTTP engine underneath, and where it goes.

    python benchmarks/overhead.py [--seconds 40]

One server in a process of its own, on three ports. Two httpx clients call it, both made as the mesh makes them: one on
a transport that does nothing but hand the same request (the same header fields too) to the engine, for the three ports
in turn, one on the mesh transport with three instances and metrics on. Blocks of calls through both alternate, so that
a change in the machine's load hits both alike; the figures are medians over pairs of blocks. What httpx itself costs,
without any wire, is printed to compare machines by.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import multiprocessing
import random
import statistics
import time
import timeit
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, cast

import httpx

from meshsdk.client import AsyncMeshTransport, MeshTransport, async_client, client
from meshsdk.client.body import Body
from meshsdk.client.names import destination
from meshsdk.client.outgoing import Outgoing, facts
from meshsdk.client.response import AsyncResponse, Response
from meshsdk.core.events import CallEnded
from meshsdk.core.exchange import Exchange
from meshsdk.core.model import Endpoint
from meshsdk.drive import drive
from meshsdk.telemetry.context import remaining_deadline
from meshsdk.telemetry.metrics import Metrics
from meshsdk.telemetry.tracing import Tracing
from meshsdk.testing import StaticDirectory
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.blocking import BlockingEngine
from meshsdk.wire.engine import AsyncReply, Bounds, Reply, Request

URL = "http://payments/charge?id=1"
# Decisions and bookkeeping may take 25 µs a call on a machine where httpx's own part of a call takes 47. Elsewhere the
# same share of that part is the target, as a slower machine is slower at both.
TARGET, YARDSTICK = 25.0, 47.0
PAYLOAD = b'{"charged":true}\n'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(PAYLOAD), PAYLOAD)


# --- the server ---------------------------------------------------------------------------------------


class Responder(asyncio.Protocol):
    """Answers every request head at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.tail = b""

    def data_received(self, data: bytes) -> None:
        data = self.tail + data
        self.transport.write(ANSWER * data.count(b"\r\n\r\n"))
        self.tail = data[data.rfind(b"\r\n\r\n") + 4 :] if b"\r\n\r\n" in data else data


def serve(pipe: Connection) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        servers = [await loop.create_server(Responder, "127.0.0.1", 0) for _ in range(3)]
        pipe.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.to_thread(pipe.poll, None)

    asyncio.run(main())


# --- the engine alone ---------------------------------------------------------------------------------


class BareBody(httpx.SyncByteStream):
    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    def __iter__(self) -> Iterator[bytes]:
        yield from self.reply

    def close(self) -> None:
        self.reply.close()


class AsyncBareBody(httpx.AsyncByteStream):
    def __init__(self, reply: AsyncReply) -> None:
        self.reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self.reply:
            yield piece

    async def aclose(self) -> None:
        await self.reply.aclose()


def bare_request(request: httpx.Request) -> tuple[Request, Bounds]:
    assert isinstance(request.stream, httpx.ByteStream)
    headers = [*request.headers.raw, (b"x-envoy-expected-rq-timeout-ms", b"5000")]
    outgoing = Request(request.method, request.url.raw_path, headers, request.read(), request.extensions)
    now = time.monotonic()
    return outgoing, Bounds(now + 5, now + 15, 1.0, 300.0, math.inf, math.inf, math.inf, 256)


class BareTransport(httpx.BaseTransport):
    library = httpx

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.engine, self.turn = BlockingEngine(), itertools.cycle(endpoints)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        reply = self.engine.send(next(self.turn), *bare_request(request))
        response = Response(reply.status, headers=reply.headers, stream=BareBody(reply), extensions=reply.extensions)
        response.reply = reply
        return response

    def close(self) -> None:
        self.engine.close()


class AsyncBareTransport(httpx.AsyncBaseTransport):
    library = httpx

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.engine, self.turn = AsyncioEngine(), itertools.cycle(endpoints)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        reply = await self.engine.send(next(self.turn), *bare_request(request))
        response = AsyncResponse(
            reply.status, headers=reply.headers, stream=AsyncBareBody(reply), extensions=reply.extensions
        )
        response.reply = reply
        return response

    async def aclose(self) -> None:
        await self.engine.aclose()


# --- pairs of blocks ----------------------------------------------------------------------------------


@dataclass
class Cost:
    """Of one call, in µs: by the wall clock, and of this process's CPU."""

    wall: float
    cpu: float


def measured(calls: int, block: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    block()
    return Cost((time.perf_counter() - wall) / calls * 1e6, (time.process_time() - cpu) / calls * 1e6)


def pairs(
    seconds: float, calls: int, bare: Callable[[], object], mesh: Callable[[], object]
) -> list[tuple[Cost, Cost]]:
    bare(), mesh()
    found: list[tuple[Cost, Cost]] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(found) < 3:
        if len(found) % 2:
            second = measured(calls, mesh)
            found.append((measured(calls, bare), second))
        else:
            first = measured(calls, bare)
            found.append((first, measured(calls, mesh)))
    return found


def row(name: str, found: list[tuple[Cost, Cost]], target: float) -> str:
    bare = statistics.median(pair[0].wall for pair in found)
    mesh = statistics.median(pair[1].wall for pair in found)
    wall = statistics.median(pair[1].wall - pair[0].wall for pair in found)
    cpu = statistics.median(pair[1].cpu - pair[0].cpu for pair in found)
    verdict = f"{cpu / target * TARGET:>12.1f}" + ("" if cpu <= target else f"  above {TARGET:.0f}")
    return f"{name:<22}{bare:>10.1f}{mesh:>10.1f}{mesh / bare:>9.3f}{wall:>12.1f}{cpu:>12.1f}{verdict}"


def sync_pairs(seconds: float, workers: int, bare: httpx.Client, mesh: httpx.Client) -> list[tuple[Cost, Cost]]:
    each = 96 // workers

    def calls(http: httpx.Client) -> None:
        for _ in range(each):
            http.get(URL)

    with ThreadPoolExecutor(workers) as threads:

        def block(http: httpx.Client) -> None:
            if workers == 1:
                calls(http)
            else:
                list(threads.map(calls, [http] * workers))

        return pairs(seconds, each * workers, lambda: block(bare), lambda: block(mesh))


def async_pairs(
    seconds: float,
    workers: int,
    run: Callable[[Awaitable[None]], None],
    bare: httpx.AsyncClient,
    mesh: httpx.AsyncClient,
) -> list[tuple[Cost, Cost]]:
    each = 96 // workers

    async def calls(http: httpx.AsyncClient) -> None:
        for _ in range(each):
            await http.get(URL)

    async def block(http: httpx.AsyncClient) -> None:
        await asyncio.gather(*(calls(http) for _ in range(workers)))

    return pairs(seconds, each * workers, lambda: run(block(bare)), lambda: run(block(mesh)))


def directory(ports: list[int]) -> tuple[StaticDirectory, Metrics]:
    metrics = Metrics()
    return StaticDirectory({"payments": [f"127.0.0.1:{port}" for port in ports]}, sink=metrics.sink), metrics


def compare(ports: list[int], seconds: float) -> None:
    httpx_alone = yardstick()
    target = TARGET / YARDSTICK * httpx_alone
    print(
        f"httpx.Client.get without a wire takes {httpx_alone:.0f} µs here: a call may cost {target:.0f} µs of CPU more"
    )
    print(f"({TARGET:.0f} where that takes {YARDSTICK:.0f}, which the last column is scaled to)\n")
    print(f"{'µs per call':<22}{'engine':>10}{'mesh':>10}{'ratio':>9}{'added':>12}{'added, CPU':>12}{'scaled':>12}")
    endpoints = [Endpoint(str(port), "127.0.0.1", port) for port in ports]
    known, _ = directory(ports)
    with client(cast(MeshTransport, BareTransport(endpoints))) as bare, client(MeshTransport(known)) as mesh:
        for workers in (1, 16):
            print(row(f"sync, {workers} at a time", sync_pairs(seconds, workers, bare, mesh), target), flush=True)
    with asyncio.Runner() as runner:
        abare = async_client(cast(AsyncMeshTransport, AsyncBareTransport(endpoints)))
        amesh = async_client(AsyncMeshTransport(known))
        for workers in (1, 16):
            found = async_pairs(seconds, workers, runner.run, abare, amesh)  # type: ignore[arg-type]
            print(row(f"async, {workers} at a time", found, target), flush=True)
        runner.run(abare.aclose())
        runner.run(amesh.aclose())


# --- where it goes ------------------------------------------------------------------------------------


class Nothing:
    """A reply without a wire."""

    status = 200
    retry_after = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self) -> None:
        self.extensions: dict[str, Any] = {}

    def whole(self) -> None:
        pass

    def __iter__(self) -> Iterator[bytes]:
        yield PAYLOAD

    def close(self) -> None:
        pass


def timed(call: Callable[[], object]) -> float:
    timer = timeit.Timer(call, timer=time.process_time)
    return min(timer.repeat(60, 300)) / 300 * 1e6


def parts(ports: list[int]) -> list[tuple[str, float]]:
    request = httpx.Request("GET", URL)
    known, metrics = directory(ports)
    silent = StaticDirectory({"payments": [f"127.0.0.1:{port}" for port in ports]}, rng=random.Random(1))
    cluster = silent.cluster("payments")
    tracing = Tracing()
    call = facts(request, None)
    outgoing = Outgoing(request, call, cluster)
    exchange = Exchange(cluster, call)
    attempt = exchange.begin()
    reply = Nothing()

    def sent(_: object) -> Nothing:
        return reply

    def decide() -> None:
        one = cluster.exchange(call)
        begun = one.begin()
        one.answered(begun, 200)
        one.finished(begun)

    def driven() -> None:
        one = cluster.exchange(call)
        _, begun = drive(one, sent, time.sleep)
        one.finished(begun)

    def spans() -> None:
        span = tracing.begin_call("payments", "GET", URL)
        span.attempt(1, "127.0.0.1", ports[0]).end(200, None)
        span.end(200, None, 1)

    def body(kind: Callable[[], httpx.SyncByteStream]) -> None:
        stream = kind()
        for _ in stream:
            pass
        stream.close()

    span = tracing.begin_call("payments", "GET", URL)

    class Ended:
        def finished(self, attempt: object) -> None:
            pass

    ended = CallEnded(
        "payments", call, 200, "", "answered", 1, 0.001, 0.001, attempt.endpoint, "defaults", "errors", "2xx"
    )

    def sink() -> None:
        metrics.sink(ended)

    whole = timed(decide)
    bare_body = timed(lambda: body(lambda: BareBody(reply)))
    mesh_body = timed(lambda: body(lambda: Body(reply, request, Ended(), attempt, span)))  # type: ignore[arg-type]
    return [
        ("host name to service", timed(lambda: destination(request.url))),
        ("look-up of the cluster", timed(lambda: known.peek("payments"))),
        ("deadline of the request being served", timed(remaining_deadline)),
        ("facts of the call", timed(lambda: facts(request, None))),
        (
            "headers and body once per call",
            timed(lambda: Outgoing(request, call, cluster)) - timed(lambda: request.headers.raw),
        ),
        ("headers and bounds once per try", timed(lambda: outgoing.prepare(attempt, []))),
        ("exchange: begin, answered, finished", whole),
        ("driver loop", timed(driven) - whole),
        ("spans, nothing recording", timed(spans)),
        ("metrics: the call's event, booked", timed(sink)),
        ("body that ends the attempt", mesh_body - bare_body),
    ]


def yardstick() -> float:
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as http:
        return timed(lambda: http.get(URL))


def table(ports: list[int]) -> None:
    print(f"\n{'where it goes, each part alone':<42}{'µs':>8}")
    found = parts(ports)
    for name, cost in found:
        print(f"{name:<42}{cost:>8.2f}")
    print(f"{'sum':<42}{sum(cost for _, cost in found):>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=40.0, help="how long to measure in all")
    seconds = parser.parse_args().seconds
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    ports: list[int] = ours.recv()
    compare(ports, max(seconds - 4, 2) / 4)
    table(ports)
    ours.send(None)
    server.join(5)


if __name__ == "__main__":
    main()

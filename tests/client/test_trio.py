"""Under trio httpx's own engine carries the calls, with everything the mesh promises; ours says what to write."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import pytest
import trio

from meshsdk import Mesh as RealMesh
from meshsdk.client import async_client, library
from meshsdk.errors import ConfigError, ConnectFailed, DeadlineExceeded
from meshsdk.identity.securing import Securing
from tests.client.colours import ONCE, QUICK, Mesh
from tests.wire.scripted import Peer, Script, Server, after_request, answering, eventually, refusing_port, reply

Serve = Callable[..., Server]
Open = Callable[[Mesh], httpx.AsyncClient]

URL = "http://payments/"


class Pieces:
    """A streamed body that is no generator: trio warns of one that is broken off, whoever does that."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = iter(pieces)

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        try:
            return next(self.pieces)
        except StopIteration:
            raise StopAsyncIteration from None


def forget(kept: list[Any]) -> None:
    kept.clear()
    gc.collect()


def half(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
    peer.stall()


HALF = after_request(half)


# Both ways to run on trio: the engine by its name, and a transport of the library's handed over.
# (`verify=False` spares the 20 ms of reading CAs, which nothing here needs.)
@pytest.fixture(
    params=[(httpx, "httpcore"), (httpx2, "httpcore"), (httpx, None), (httpx2, None)],
    ids=["httpx", "httpx2", "httpx-own", "httpx2-own"],
)
def http(request: pytest.FixtureRequest) -> Open:
    module, name = request.param
    made = library(module).AsyncMeshTransport
    return lambda mesh: async_client(made(mesh.directory, engine=name or module.AsyncHTTPTransport(verify=False)))


def test_calls_share_a_connection_and_the_run_closes_it(serve: Serve, http: Open) -> None:
    server = serve(answering(reply(b"hello")))
    mesh = Mesh(server)

    async def main() -> None:
        async with http(mesh) as client:
            for _ in range(2):
                assert (await client.post(URL, content=Pieces(b"one", b"two"))).text == "hello"
            assert server.connections == len(server.bodies) / 2

    for _ in range(2):
        trio.run(main)
        eventually(lambda: server.open_connections == 0)
    assert server.bodies == [b"onetwo"] * 4
    mesh.assert_at_rest()


def test_connections_nobody_closed_close_with_the_run(serve: Serve) -> None:
    server = serve(answering())
    clients = [async_client(library(httpx).AsyncMeshTransport(Mesh(server).directory, engine="httpcore"))]

    async def main() -> None:
        await clients[0].get(URL)
        assert server.open_connections == 1

    for _ in range(2):
        trio.run(main)
        eventually(lambda: server.open_connections == 0)
    assert server.connections == 2


def test_retries(serve: Serve, http: Open) -> None:
    replies = [reply(b"at last"), reply(b"", 503), reply(b"", 503)]
    mesh = Mesh(serve(after_request(lambda peer: peer.send(replies.pop()))))

    async def main() -> None:
        async with http(mesh) as client:
            assert (await client.get(URL)).text == "at last"

    trio.run(main)
    assert [call.attempts for call in mesh.calls] == [3]
    mesh.assert_at_rest()


def test_nobody_listens(http: Open) -> None:
    with refusing_port() as port:
        mesh = Mesh(f"127.0.0.1:{port}")

        async def main() -> None:
            async with http(mesh) as client:
                with pytest.raises(ConnectFailed) as caught:
                    await client.post(URL, content=b"x")
                assert caught.value.attempts == 3

        trio.run(main)
    mesh.assert_at_rest()


def test_more_calls_than_connections(serve: Serve) -> None:
    plan = replace(QUICK, limits=replace(QUICK.limits, max_connections_per_endpoint=2))
    server = serve(answering())
    mesh = Mesh(server, plan=plan)

    async def main() -> None:
        transport = library(httpx).AsyncMeshTransport(mesh.directory, engine="httpcore")
        async with async_client(transport) as client, trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(client.get, URL)

    trio.run(main)
    assert len(mesh.calls) == 12
    assert server.connections <= 2
    mesh.assert_at_rest()


def drips_its_head(peer: Peer) -> None:
    peer.drip(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1000, 0.03)


def drips_its_body(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    peer.drip(b"y" * 1000, 0.03)


@pytest.mark.parametrize("then", [Peer.stall, drips_its_head, drips_its_body])
def test_deadlines(serve: Serve, http: Open, then: Callable[[Peer], None]) -> None:
    server = serve(after_request(then))
    mesh = Mesh(server, plan=replace(ONCE, timeouts=replace(ONCE.timeouts, attempt=0.2, request=0.3)))

    async def main() -> None:
        async with http(mesh) as client:
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await client.get(URL)
            assert 0.15 < time.monotonic() - began < 0.6

    trio.run(main)
    mesh.assert_at_rest()
    eventually(lambda: server.open_connections == 0)


def test_streaming(serve: Serve, http: Open) -> None:
    body = bytes(range(256)) * 4000
    mesh = Mesh(serve(answering(reply(body))))

    async def main() -> None:
        async with http(mesh) as client, client.stream("GET", URL) as response:
            assert mesh.cluster.in_flight == 1
            assert b"".join([piece async for piece in response.aiter_bytes()]) == body

    trio.run(main)
    assert [call.flag for call in mesh.calls] == [""]
    mesh.assert_at_rest()


def test_a_body_read_in_part(serve: Serve, http: Open) -> None:
    server = serve(HALF)
    mesh = Mesh(server)

    async def main() -> None:
        async with http(mesh) as client, client.stream("GET", URL):
            assert mesh.cluster.in_flight == 1

    trio.run(main)
    mesh.assert_at_rest()
    eventually(lambda: server.open_connections == 0)


# --- cancellation -------------------------------------------------------------------------------------


def slow() -> Script:
    """Answer in pieces, so that there are many moments at which to be cancelled; every third time with a 503."""
    statuses = itertools.cycle([200, 503, 200])

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            answer = reply(b"x" * 300, next(statuses))
            for start in range(0, len(answer), 64):
                peer.send(answer[start : start + 64])
                peer.stopped.wait(0.0005)

    return script


@pytest.mark.parametrize("streamed", [False, True])
def test_cancelled_at_every_turn(serve: Serve, http: Open, streamed: bool) -> None:
    server = serve(slow())
    mesh = Mesh(server)

    async def main(turns: int) -> None:
        async with http(mesh) as client:

            async def call() -> None:
                content: Any = Pieces(b"one", b"two") if streamed else b"onetwo"
                async with client.stream("PUT", URL, content=content) as response:
                    await response.aread()

            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(call)
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            mesh.assert_at_rest()

    for turns in range(60):
        before = len(mesh.calls)
        trio.run(main, turns)
        assert len(mesh.calls) - before <= 1
        assert all(call.flag in {"DC", "", "URX"} for call in mesh.calls[before:])
    assert any(call.flag == "DC" for call in mesh.calls)
    eventually(lambda: server.open_connections == 0)


@pytest.mark.parametrize("delay", [0.001 * turn for turn in range(0, 20, 2)])
def test_a_scope_that_ends_at_some_moment(serve: Serve, http: Open, delay: float) -> None:
    server = serve(slow())
    mesh = Mesh(server)

    async def main() -> None:
        async with http(mesh) as client, trio.open_nursery() as nursery:

            async def call(after: float) -> None:
                with trio.move_on_after(after):
                    await client.get(URL)

            for number in range(4):
                nursery.start_soon(call, delay + 0.0005 * number)

    trio.run(main)
    mesh.assert_at_rest()
    assert len(mesh.calls) <= 4
    eventually(lambda: server.open_connections == 0)


def test_cancelled_while_it_waits_to_retry(serve: Serve, http: Open) -> None:
    pauses = replace(QUICK.retries, backoff_base=1000.0, backoff_max=1000.0)
    plan = replace(QUICK, retries=pauses, timeouts=replace(QUICK.timeouts, request=0.0))
    mesh = Mesh(serve(answering(reply(b"", 503))), plan=plan)

    async def main() -> None:
        async with http(mesh) as client:
            with trio.move_on_after(0.2) as scope:
                await client.get(URL)
            assert scope.cancelled_caught

    trio.run(main)
    assert [(call.flag, call.attempts) for call in mesh.calls] == [("DC", 1)]
    mesh.assert_at_rest()


def test_cancelled_calls_leave_their_connections_usable(serve: Serve) -> None:
    plan = replace(QUICK, limits=replace(QUICK.limits, max_connections_per_endpoint=2))
    mesh = Mesh(serve(answering()), plan=plan)

    async def main() -> None:
        transport = library(httpx).AsyncMeshTransport(mesh.directory, engine="httpcore")
        async with async_client(transport) as client:
            answered: list[int] = []

            async def call(scope: trio.CancelScope) -> None:
                with scope:
                    answered.append((await client.get(URL)).status_code)

            for turns in range(25):
                answered.clear()
                scopes = [trio.CancelScope() for _ in range(6)]
                async with trio.open_nursery() as nursery:
                    for scope in scopes:
                        nursery.start_soon(call, scope)
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    for scope in scopes[::2]:
                        scope.cancel()
                assert len(answered) >= 3
                mesh.assert_at_rest()

    trio.run(main)


def test_forgotten(serve: Serve, http: Open) -> None:
    server = serve(HALF)
    mesh = Mesh(server)

    async def main() -> None:
        client = http(mesh)
        kept = [await client.send(client.build_request("GET", URL), stream=True)]
        with pytest.warns(ResourceWarning, match="never closed"):
            forget(kept)
        with trio.fail_after(5):
            while server.open_connections:  # noqa: ASYNC110 - the server is no part of the run
                await trio.sleep(0.01)
        mesh.assert_at_rest()
        await client.aclose()

    trio.run(main)


def test_forgotten_until_the_run_is_over(serve: Serve, http: Open) -> None:
    server = serve(HALF)
    mesh = Mesh(server)
    kept: list[Any] = []

    async def main() -> None:
        client = http(mesh)
        kept.append(await client.send(client.build_request("GET", URL), stream=True))
        await client.aclose()

    trio.run(main)
    with pytest.warns(ResourceWarning, match="never closed"):
        forget(kept)

    async def another() -> None:
        async with http(mesh):
            pass  # closing lets go of what is forgotten

    trio.run(another)
    mesh.assert_at_rest()


# --- where calls wait for the background --------------------------------------------------------------


def test_a_first_call_waits_without_stopping_the_run(consul_away: RealMesh) -> None:
    turns: list[int] = []

    async def tick() -> None:
        while True:
            await trio.sleep(0.01)
            turns.append(1)

    async def main() -> None:
        async with consul_away.async_client(engine="httpcore") as client, trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            with pytest.raises(httpx.ConnectError, match="nothing is remembered"):
                await client.get(URL)
            nursery.cancel_scope.cancel()
        await consul_away.directory.aclose()

    trio.run(main)
    assert len(turns) >= 5


@pytest.fixture
def consul_away(serve: Serve, tmp_path: Any) -> Iterator[RealMesh]:
    """A mesh whose Consul takes requests and never answers."""
    server = serve(after_request(Peer.stall))
    with RealMesh("caller", consul_url=f"http://{server.address}", first_wait=0.15, state_dir=tmp_path) as mesh:
        yield mesh


def test_an_identity_is_waited_for_in_a_thread() -> None:
    threads: list[threading.Thread] = []
    identity: Any = SimpleNamespace(wait_answer=lambda seconds: threads.append(threading.current_thread()))
    trio.run(Securing(identity, {}.get).await_ready)
    trio.run(Securing(None, {}.get).await_ready)
    assert [thread is threading.current_thread() for thread in threads] == [False]


# --- which engine runs where --------------------------------------------------------------------------


def test_our_own_engine_says_what_to_write() -> None:
    async def main() -> None:
        mesh = Mesh("127.0.0.1:1")
        async with async_client(library().AsyncMeshTransport(mesh.directory)) as client:
            with pytest.raises(ConfigError, match=r'under trio write mesh\.async_client\(engine="httpcore"\)'):
                await client.get(URL)

    trio.run(main)


def test_where_nothing_runs() -> None:
    transport = library().AsyncMeshTransport(Mesh("127.0.0.1:1").directory, engine="httpcore")
    with pytest.raises(ConfigError, match="none of them runs here"):
        transport.handle_async_request(httpx.Request("GET", URL)).send(None)


def test_asyncio_and_trio_in_turn(serve: Serve) -> None:
    client = async_client(library().AsyncMeshTransport(Mesh(serve(answering())).directory, engine="httpcore"))

    async def main() -> None:
        assert (await client.get(URL)).text == "ok"

    for _ in range(3):
        trio.run(main)
        asyncio.run(main())


def test_two_runs_at_a_time(serve: Serve) -> None:
    server = serve(answering())
    mesh = Mesh(server)
    client = async_client(library().AsyncMeshTransport(mesh.directory, engine="httpcore"))
    both = threading.Barrier(2)
    failed: list[BaseException] = []

    async def main() -> None:
        for _ in range(20):
            await client.get(URL)
        await trio.to_thread.run_sync(both.wait, 5)
        await client.get(URL)

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failed == []
    assert server.connections == 2
    mesh.assert_at_rest()


def test_trio_as_a_guest_of_asyncio(serve: Serve) -> None:
    """Then both run here, and calls made in trio belong to trio."""
    mesh = Mesh(serve(answering()))

    async def guest() -> str:
        async with async_client(library().AsyncMeshTransport(mesh.directory, engine="httpcore")) as client:
            return (await client.get(URL)).text

    async def host() -> Any:
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=ended.set_result,
        )
        return (await ended).unwrap()

    assert asyncio.run(host()) == "ok"
    mesh.assert_at_rest()

"""One transport used by many threads, many tasks, several loops and a forked child."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
import uvloop

from meshsdk.client import AsyncMeshTransport, MeshTransport, async_client, client
from meshsdk.client.engines import AWAITING
from meshsdk.client.errors import ConnectFailed
from meshsdk.identity.securing import Securing
from tests.client.colours import QUICK, Mesh
from tests.wire.scripted import Peer, Server, answering, eventually, reply

Serve = Callable[..., Server]

PATIENT = replace(QUICK, timeouts=replace(QUICK.timeouts, request=20.0, attempt=10.0, connect=5.0))


def test_32_threads(serve: Serve) -> None:
    servers = [serve(answering(reply(b"hello"))) for _ in range(3)]
    mesh = Mesh(*servers, plan=PATIENT)
    with client(MeshTransport(mesh.directory)) as http, ThreadPoolExecutor(32) as threads:

        def call(number: int) -> str:
            return http.post(f"http://payments/{number}", content=b"x").text

        assert set(threads.map(call, range(640))) == {"hello"}
    assert len(mesh.calls) == 640
    assert {call.status for call in mesh.calls} == {200}
    assert sum(len(server.heads) for server in servers) == 640
    mesh.assert_at_rest()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_64_tasks(serve: Serve, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    servers = [serve(answering(reply(b"hello"))) for _ in range(3)]
    mesh = Mesh(*servers, plan=PATIENT)

    async def main() -> None:
        async with async_client(AsyncMeshTransport(mesh.directory)) as http:

            async def worker() -> None:
                for _ in range(5):
                    assert (await http.post("http://payments/", content=b"x")).text == "hello"

            async with asyncio.TaskGroup() as group:
                for _ in range(64):
                    group.create_task(worker())

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert len(mesh.calls) == 320
    mesh.assert_at_rest()


def test_a_loop_per_call(serve: Serve) -> None:
    server = serve(answering())
    mesh = Mesh(server)
    http = async_client(AsyncMeshTransport(mesh.directory))
    for factory in [asyncio.new_event_loop, uvloop.new_event_loop] * 3:
        with asyncio.Runner(loop_factory=factory) as runner:
            assert runner.run(http.get("http://payments/")).text == "ok"
            assert runner.run(http.get("http://payments/")).text == "ok"
        eventually(lambda: server.open_connections == 0)
    assert server.connections == 6
    mesh.assert_at_rest()


def test_two_loops_at_the_same_time(serve: Serve) -> None:
    mesh = Mesh(serve(answering()), plan=PATIENT)
    http = async_client(AsyncMeshTransport(mesh.directory))

    def run() -> None:
        async def main() -> None:
            for _ in range(50):
                assert (await http.get("http://payments/")).text == "ok"

        asyncio.run(main())

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(run) for _ in range(4)]:
            future.result()
    assert len(mesh.calls) == 200
    mesh.assert_at_rest()


@pytest.mark.parametrize("engine", AWAITING)
def test_every_loop_lets_go_of_what_a_new_policy_forbids(serve: Serve, engine: str) -> None:
    server = serve(answering())
    mesh = Mesh(server, plan=replace(PATIENT, tls="off"))
    http = async_client(AsyncMeshTransport(mesh.directory, engine=engine, security=Securing(None, mesh.directory.peek)))
    with asyncio.Runner() as one, asyncio.Runner() as other:
        for runner in (one, other):
            assert runner.run(http.get("http://payments/")).text == "ok"
        mesh.cluster.adopt(replace(PATIENT, tls="strict"))
        for runner in (one, other):
            with pytest.raises(ConnectFailed, match=r"tls\.mode of payments is strict"):
                runner.run(http.get("http://payments/"))
    assert len(server.heads) == 2, "nothing more was sent in clear text"
    mesh.assert_at_rest()


async def closed_after(call: Awaitable[object], http: httpx.AsyncClient) -> None:
    await call
    await http.aclose()


def test_loops_that_have_ended_are_forgotten(serve: Serve) -> None:
    transport = AsyncMeshTransport(Mesh(serve(answering())).directory)
    http = async_client(transport)
    for _ in range(3):
        asyncio.run(http.get("http://payments/"))
    assert len(transport._retirements) == 1
    asyncio.run(closed_after(http.get("http://payments/"), http))
    assert not transport._retirements, "a loop of uvloop takes 256 KiB"


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_uses_none_of_its_parents_connections(serve: Serve) -> None:
    forked = threading.Event()

    def in_two_halves(peer: Peer) -> None:
        first = server.connections == 1
        while peer.request() is not None:
            peer.send(reply()[:-1])
            if first:
                forked.wait(10)
            peer.send(b"k")

    server = serve(in_two_halves)
    mesh = Mesh(server, plan=PATIENT)
    with client(MeshTransport(mesh.directory)) as http:
        held = http.send(http.build_request("GET", "http://payments/"), stream=True)
        http.get("http://payments/")
        assert server.connections == 2
        child = os.fork()
        if child == 0:
            os._exit(_in_child(http))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert server.connections == 3, "the child opened one of its own"
        forked.set()
        assert held.read() == b"ok", "and left the parent's alone"
        http.get("http://payments/")
        assert server.connections == 3
    mesh.assert_at_rest()


def _in_child(http: httpx.Client) -> int:
    try:
        good = all(http.get("http://payments/").text == "ok" for _ in range(2))
    except BaseException as error:
        print(repr(error))
        return 2
    return 0 if good else 1

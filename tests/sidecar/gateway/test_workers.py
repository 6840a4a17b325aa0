"""A gateway of several processes: all serve, one that is killed is replaced, limits and certificates are of all."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.sidecar.conftest import wait
from tests.sidecar.gateway.edges import HOST, started, write
from tests.sidecar.gateway.test_certificates import names
from tests.sidecar.proxy.ends import Client, Cut
from tests.sidecar.restarts import hello
from tests.sidecar.test_workers import lives, refused, until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="workers are found in /proc"),
    pytest.mark.asyncio(loop_factories=["asyncio"]),
]

REQUESTS = "http_client_request_duration_seconds_count"


def total(metrics: str, name: str) -> int:
    return sum(int(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith(name))


def examines(pid: int) -> bool:
    """Whether a process has loaded what examines certificates."""
    return "/cryptography/" in Path(f"/proc/{pid}/maps").read_text()


async def moved(port: int) -> int:
    """What the port for clear text says."""
    client = await Client.open(port)
    try:
        return (await client.ask(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())).status
    finally:
        client.reset()


async def test_two_workers_are_one_gateway(tmp_path, shared_agent, upstream, issuer, file):
    context = issuer.client()
    async with upstream(hello) as service:
        ports = write(tmp_path, file, service.name, workers=2)
        with started(tmp_path, shared_agent, ports) as edge:
            await edge.until_ready()
            pids = edge.workers()
            assert len(pids) == 2

            # Both take connections at both ports, and what they count is one sum.
            assert {(await edge.ask(context)).status for _ in range(20)} == {200}
            assert {await moved(edge.http) for _ in range(10)} == {301}
            assert {(await edge.ask(context, "/%zz")).status for _ in range(7)} == {400}
            assert await edge.callers(service.name) == pids
            metrics = await edge.shown("/metrics")
            assert total(metrics, REQUESTS) == 20, metrics
            assert total(metrics, 'mesh_sidecar_refused_total{mesh_listener="gateway",mesh_reason="target"}') == 7

            # Certificates and requests of the mesh are matters of one process alone.
            assert not any(map(examines, pids)), "8 MB each"
            assert examines(edge.process.pid)

            # One that is killed is replaced, while requests go on; no sum falls.
            victim, came, over = min(pids), Counter[object](), asyncio.Event()
            asking = asyncio.create_task(go_on(edge, context, came, over))
            await until(lambda: reached(came, 10))
            os.kill(victim, signal.SIGKILL)
            await until(lambda: replaced(edge, victim))
            so_far = came.total()
            await until(lambda: reached(came, so_far + 20))
            over.set()
            await asking
            assert came.total() - came[200] <= 1, came  # the one request that it was carrying
            assert f"worker {victim} has ended with 137: another takes its place\n" in edge.log.read_text()
            assert total(await edge.shown("/metrics"), REQUESTS) >= 20 + came[200] - 10
            assert max(pids) in edge.workers()

            pids = edge.workers()
            edge.process.terminate()
            assert await asyncio.to_thread(edge.process.wait, 15) == 0
            assert not any(map(lives, pids))
            assert "Traceback" not in edge.log.read_text()


async def go_on(edge, context, came, over) -> None:
    """One request after the other, on connections of their own."""
    while not over.is_set():
        try:
            came[(await edge.ask(context)).status] += 1
        except (OSError, Cut) as error:
            came[repr(error)] += 1


async def reached(came, count) -> bool:
    return came[200] >= count


async def replaced(edge, victim) -> bool:
    return len(edge.workers() - {victim}) == 2


async def test_a_certificate_that_changes_is_shown_by_all_workers(tmp_path, shared_agent, upstream, issuer, file):
    context, folder = issuer.client(), issuer.folder
    issuer.folder = tmp_path
    try:
        file["certificates"][0] = issuer.issue("own", HOST)
        async with upstream(hello) as service:
            ports = write(tmp_path, file, service.name, workers=2)
            with started(tmp_path, shared_agent, ports) as edge:
                await edge.until_ready()
                before = await edge.connect(context)
                assert await shown(edge, context) == {frozenset({HOST})}
                issuer.issue("own", HOST, "new.example.com")
                new = frozenset({HOST, "new.example.com"})

                async def told() -> bool:
                    return new in await shown(edge, context, 1)

                assert await until(told) < 5.0, "files are looked at every second"
                await asyncio.sleep(0.1)  # twice what workers take to be told
                assert await shown(edge, context) == {new}
                assert set(json.loads(await edge.shown("/certs"))["public"][0]["hosts"]) == new
                assert (await before.ask(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())).status == 200
                before.reset()

                # While the files are bad, what was in force stays, for a worker too that begins then.
                (tmp_path / "own.key").write_text("half")
                await asyncio.to_thread(
                    wait, lambda: "the certificate in force stays" in edge.log.read_text(), edge.log
                )
                for victim in edge.workers():
                    os.kill(victim, signal.SIGKILL)
                    await until(lambda victim=victim: replaced(edge, victim))
                assert await shown(edge, context) == {new}
                assert (await edge.ask(context)).status == 200
    finally:
        issuer.folder = folder


async def shown(edge, context, times: int = 20) -> set[frozenset[str]]:
    """For whom the certificates are that are shown to connections, of which each worker has some."""
    found = set()
    for _ in range(times):
        client = await edge.connect(context)
        found.add(frozenset(names(client)))
        client.reset()
    return found


async def test_what_a_client_may_take_is_of_all_workers_together(tmp_path, shared_agent, upstream, issuer, file):
    limits = {"connections_per_client": 6, "requests_per_second": 0.001, "burst": 7}
    context = issuer.client()
    async with upstream(hello) as service:
        ports = write(tmp_path, file, service.name, workers=2, limits=limits)
        with started(tmp_path, shared_agent, ports) as edge:
            await edge.until_ready()
            clients = [await Client.open(edge.https) for _ in range(10)] + [await Client.open(edge.http)]
            await until(lambda: left(clients, 6))
            for client in clients:
                client.reset()

            # Who has gone is not counted, also where the worker is gone that would have counted.
            clients = await full(edge)
            victim = min(edge.workers())
            os.kill(victim, signal.SIGKILL)
            await until(lambda: replaced(edge, victim))
            stayed = await standing(clients)
            assert stayed < 6, "some were the worker's"
            more = [await Client.open(edge.https) for _ in range(10)]
            await until(lambda: left(more, 6 - stayed))
            for client in (*clients, *more):
                client.reset()

            async def welcome() -> bool:
                try:
                    return (await edge.ask(context)).status == 200
                except OSError:
                    return False

            await until(welcome)
            answers = Counter([(await edge.ask(context)).status for _ in range(20)])
            assert answers == {200: 6, 429: 14}, "and one was asked before"
            assert {await moved(edge.http) for _ in range(6)} == {429}


async def full(edge) -> list[Client]:
    """As many connections as one may have, of which each worker has some."""
    while True:
        clients = [await Client.open(edge.http) for _ in range(6)]
        await asyncio.sleep(0.05)
        if await standing(clients) == 6 and len([pid for pid in edge.workers() if sockets_of(pid)]) == 2:
            return clients
        for client in clients:
            client.reset()


def sockets_of(pid: int) -> int:
    """Connections of a worker, at its port for clear text."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    inodes = {line.split()[9] for line in lines if line.split()[3] == "01"}
    links = [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(f"socket:[{inode}]" in links for inode in inodes)


async def standing(clients) -> int:
    """How many are not closed."""
    await asyncio.sleep(0)
    return sum(not client.reader.at_eof() and client.reader.exception() is None for client in clients)


async def left(clients, count: int) -> bool:
    return await standing(clients) == count


async def test_the_end_finishes_what_each_worker_has_begun(tmp_path, shared_agent, upstream, issuer, file):
    arrived, further = asyncio.Semaphore(0), asyncio.Event()

    async def slow(scope, receive, send) -> None:
        arrived.release()
        await further.wait()
        await hello(scope, receive, send)

    context = issuer.client()
    async with upstream(slow) as service, ending(further):
        ports = write(tmp_path, file, service.name, workers=2)
        with started(tmp_path, shared_agent, ports) as edge:
            await edge.until_ready()
            calls = [asyncio.ensure_future(edge.ask(context)) for _ in range(16)]
            for _ in calls:
                await arrived.acquire()
            assert await edge.callers(service.name) == edge.workers(), "both carry some"
            edge.process.terminate()

            async def unready() -> bool:
                return (await asyncio.to_thread(edge.page, "/ready"))[0] == 503

            await until(unready)
            await until(lambda: refused(edge.http))
            await until(lambda: refused(edge.https))
            further.set()
            assert {(reply.status, reply.body) for reply in await asyncio.gather(*calls)} == {(200, b"hello")}
            assert await asyncio.to_thread(edge.process.wait, 15) == 0


@asynccontextmanager
async def ending(event: asyncio.Event):
    """Whatever fails, the app comes to its end."""
    try:
        yield
    finally:
        event.set()


async def test_one_worker_is_one_process(tmp_path, shared_agent, upstream, issuer, file):
    async with upstream(hello) as service:
        ports = write(tmp_path, file, service.name)
        with started(tmp_path, shared_agent, ports) as edge:
            await edge.until_ready()
            assert (await edge.ask(issuer.client())).status == 200
            assert not edge.workers()


async def test_workers_end_with_a_control_process_that_is_killed(tmp_path, shared_agent, upstream, issuer, file):
    async with upstream(hello) as service:
        ports = write(tmp_path, file, service.name)
        with started(tmp_path, shared_agent, ports, "--workers", "2") as edge:
            await edge.until_ready()
            pids, began = edge.workers(), time.monotonic()
            edge.process.kill()
            await asyncio.to_thread(wait, lambda: not any(map(lives, pids)), edge.log)
            assert time.monotonic() - began < 5, "nothing was in flight"
        assert edge.log.read_text().count("the control process is gone") == 2

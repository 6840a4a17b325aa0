"""Several workers with real processes: both serve and obey, one that is killed is replaced, and the end reaches all."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from meshsdk_registry import Consul, Health
from tests.real_consul import free_ports
from tests.sidecar.conftest import ROOT, end, environment, wait
from tests.sidecar.listener import listening
from tests.sidecar.restarts import app, called, hello, load, running, successor, until_ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are found in /proc")

TWO = "workers: 2\ndrain: {app: 200ms}"


def workers_of(sidecar) -> list[int]:
    pid = sidecar.process.pid
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def ask(url: str, times: int, **headers: str) -> list[int]:
    """Requests on connections of their own."""
    async with httpx.AsyncClient(
        trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0)
    ) as http:
        return [(await http.get(url, headers=headers)).status_code for _ in range(times)]


async def page(sidecar, path: str) -> str:
    status, text = await asyncio.to_thread(sidecar.page, path)
    assert status == 200
    return text


async def callers(sidecar) -> set[int]:
    """The workers that have called the service `called`."""
    found = json.loads(await page(sidecar, "/clusters"))
    return {worker["pid"] for each in found if each["service"] == "called" for worker in each["workers"]}


async def until(condition, seconds: float = 10.0) -> float:
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_two_workers_are_one_sidecar(tmp_path, dev_agent):
    async with Consul(dev_agent.url) as consul, called(consul), app() as port:
        with running(tmp_path, dev_agent.url, f"name: legacy, port: {port}", more=TWO) as sidecar:
            await asyncio.to_thread(sidecar.until_ready)
            inbound, pids = f"http://127.0.0.1:{sidecar.inbound}/", set(workers_of(sidecar))
            assert len(pids) == 2

            # Both take connections, and what they count is one sum.
            assert set(await ask(sidecar.proxy, 20, host="called")) == {200}
            assert set(await ask(inbound, 20)) == {200}
            assert await callers(sidecar) == pids
            text = await page(sidecar, "/metrics")
            assert _sum(text, "client") == 20, text
            assert _sum(text, "server") == 20, text

            # What the policy says is in force in both soon.
            await consul.put("mesh/policy/called", b"version: 1\ntls: {mode: strict}")
            await consul.put("mesh/policy/legacy", b"version: 1\ntls: {mode: strict}")

            async def obeyed() -> bool:
                return {*await ask(sidecar.proxy, 6, host="called"), *await ask(inbound, 6)} <= {400, 403, 503}

            assert await until(obeyed) < 5.0, "it is told at once; a quiet machine takes less than one second"
            await consul.put("mesh/policy/called", b"version: 1\ntls: {mode: permissive}")
            await consul.put("mesh/policy/legacy", b"version: 1\ntls: {mode: permissive}")

            async def undone() -> bool:
                return {*await ask(sidecar.proxy, 6, host="called"), *await ask(inbound, 6)} == {200}

            await until(undone)

            # One that is killed is replaced; the other goes on, and no sum falls.
            before, victim = _sum(await page(sidecar, "/metrics"), "client"), min(pids)
            os.kill(victim, signal.SIGKILL)

            async def replaced() -> bool:
                return len(set(workers_of(sidecar)) - {victim}) == 2

            assert await until(replaced) < 5
            await until(undone)
            assert max(pids) in workers_of(sidecar)
            assert f"worker {victim} has ended with 137: another takes its place\n" in sidecar.log.read_text()
            assert _sum(await page(sidecar, "/metrics"), "client") >= before + 6

            pids = set(workers_of(sidecar))
            assert await asyncio.to_thread(end, sidecar) == 0, sidecar.log.read_text()
            assert not any(map(lives, pids))
        assert (await consul.instances("legacy")).value == ()
    assert "Traceback" not in sidecar.log.read_text()


def _sum(text: str, side: str) -> int:
    """Calls, or requests that were let in, of all labels."""
    name = {
        "client": "http_client_request_duration_seconds_count",
        "server": "http_server_request_duration_seconds_count",
    }[side]
    return sum(int(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


async def test_workers_show_and_check_the_certificate_of_their_sidecar(tmp_path, dev_agent):
    """From one sidecar with workers to another: mutual TLS, as the policy asks for nothing less."""
    (tmp_path / "caller").mkdir()
    async with Consul(dev_agent.url) as consul, app() as port:
        await consul.put("mesh/policy/legacy", b"version: 1\ntls: {mode: strict}")
        with (
            running(tmp_path, dev_agent.url, f"name: legacy, port: {port}", more=TWO) as sidecar,
            running(tmp_path / "caller", dev_agent.url, "name: web", more=TWO) as caller,
        ):
            await asyncio.to_thread(sidecar.until_ready)
            await asyncio.to_thread(caller.until_ready)
            assert set(await ask(caller.proxy, 12, host="legacy")) == {200}
            assert set(await ask(f"http://127.0.0.1:{sidecar.inbound}/", 4)) == {400}
            rules = "authorization: {rules: [{name: no web, deny: {from: [web]}}]}"
            await consul.put("mesh/policy/legacy", f"version: 1\ntls: {{mode: strict}}\n{rules}".encode())

            async def denied() -> bool:
                return set(await ask(caller.proxy, 6, host="legacy")) == {403}

            await until(denied)


async def test_the_end_finishes_what_each_worker_has_begun(tmp_path, dev_agent):
    arrived, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(scope, receive, send) -> None:
        arrived.release()
        await go_on.wait()
        await hello(scope, receive, send)

    port = free_ports(1)[0]
    async with listening(slow, "127.0.0.1", port), httpx.AsyncClient(trust_env=False) as http:
        with running(tmp_path, dev_agent.url, f"name: legacy, port: {port}", more=TWO) as sidecar:
            await asyncio.to_thread(sidecar.until_ready)
            url = f"http://127.0.0.1:{sidecar.inbound}/"
            calls = [asyncio.ensure_future(http.get(url)) for _ in range(16)]
            for _ in calls:
                await arrived.acquire()
            sidecar.process.terminate()
            await asyncio.to_thread(wait, lambda: "deregistered" in sidecar.log.read_text(), sidecar.log)
            await until(lambda: refused(sidecar.inbound))
            go_on.set()
            assert {(await call).text for call in calls} == {"hello"}
            assert await asyncio.to_thread(sidecar.process.wait, 15) == 0


async def refused(port: int) -> bool:
    """Whether nobody is let in, nor kept waiting for it."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_workers_end_with_a_control_process_that_is_killed(tmp_path, dev_agent):
    with running(tmp_path, dev_agent.url, "name: legacy", more=TWO) as sidecar:
        await asyncio.to_thread(sidecar.until_ready)
        pids = workers_of(sidecar)
        sidecar.process.kill()
        await asyncio.to_thread(wait, lambda: not any(map(lives, pids)), sidecar.log)
    assert sidecar.log.read_text().count("the control process is gone") == 2


def test_a_second_signal_ends_all_at_once(tmp_path, dev_agent):
    with (
        listens() as port,
        running(
            tmp_path, dev_agent.url, f"name: legacy, port: {port}", more="workers: 2\ndrain: {wait: 1m}"
        ) as sidecar,
    ):
        sidecar.until_ready()
        pids = workers_of(sidecar)
        sidecar.process.terminate()
        wait(lambda: "put into maintenance" in sidecar.log.read_text(), sidecar.log)
        sidecar.process.send_signal(signal.SIGINT)
        assert sidecar.process.wait(5) == 128 + signal.SIGINT
        wait(lambda: not any(map(lives, pids)), sidecar.log)


async def test_workers_are_replaced_with_their_sidecar_under_load(tmp_path, dev_agent):
    """By more of them, who share some sockets."""
    seen: set[Health | None] = set()
    async with Consul(dev_agent.url) as consul, called(consul), app() as port:
        service = f"name: legacy, port: {port}, health: {{tcp: true}}"
        with running(tmp_path, dev_agent.url, service, more=TWO) as sidecar, ExitStack() as after:
            await asyncio.to_thread(sidecar.until_ready)
            async with load(sidecar.proxy, host="called") as out, load(f"http://127.0.0.1:{sidecar.inbound}/") as into:
                next_one = successor(tmp_path, dev_agent.url, "next.log", "--workers", "3")
                process, _ = after.enter_context(next_one)
                await until_ended(sidecar.process, consul, seen)
                sidecar.process = process
                await asyncio.to_thread(sidecar.until_ready)
                assert len(workers_of(sidecar)) == 3
            assert (set(out), set(into)) == ({"200"}, {"200"}), (out, into)
            assert await asyncio.to_thread(end, sidecar) == 0
    assert seen == {Health.PASSING}
    assert not any("Traceback" in log.read_text() for log in tmp_path.glob("*.log"))


def test_a_taken_port_is_not_shared(tmp_path, dev_agent):
    with running(tmp_path, dev_agent.url, "name: legacy", more=TWO) as first:
        first.until_ready()
        file = tmp_path / "sidecar.yaml"
        file.write_text(
            file.read_text().replace(f"admin: {{port: {first.admin}}}", f"admin: {{port: {free_ports(1)[0]}}}")
        )
        with successor(tmp_path, "http://127.0.0.1:1", MESH_RUNTIME_DIR=str(tmp_path / "other")) as (process, log):
            assert process.wait(15) == 2
        assert f"cannot listen at 127.0.0.1:{first.out}: Address already in use" in log.read_text()


@contextmanager
def listens():
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found.getsockname()[1]


@pytest.mark.parametrize("count", ["0", "257"])
def test_a_number_that_cannot_be(tmp_path, count):
    (tmp_path / "s.yaml").write_text("service: {name: legacy}")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "meshsdk_sidecar", "-c", tmp_path / "s.yaml", "--workers", count],
        env=environment(tmp_path, "http://127.0.0.1:1"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, f"error: --workers {count}: write 1 to 256\n")

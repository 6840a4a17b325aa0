"""A sidecar's life as a process: the service's presence, the drain, and starts that cannot be."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import asynccontextmanager, contextmanager

import httpx
import pytest

from meshsdk_registry import DRAINING, Consul, Health, Registration
from meshsdk_sidecar.listener import listening
from tests.real_consul import free_ports
from tests.sidecar.conftest import end, start, wait


@contextmanager
def begun(tmp_path, consul, service):
    sidecar = start(tmp_path, consul, service)
    try:
        yield sidecar
    finally:
        sidecar.process.kill()
        sidecar.process.wait()


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.02)


@asynccontextmanager
async def served(consul, app):
    """An application registered as `hello`."""
    port = free_ports(1)[0]
    async with listening(app, "test", "127.0.0.1", port):
        registration = Registration("hello", "hello-1", "127.0.0.1", port)
        await consul.register(registration)
        await consul.pass_ttl(registration.check_id)
        yield


async def test_the_service_is_in_consul_while_its_port_accepts(tmp_path, dev_agent):
    port = free_ports(1)[0]
    async with Consul(dev_agent.url) as consul:
        with begun(tmp_path, dev_agent.url, f"name: legacy, port: {port}") as sidecar:
            wait(lambda: "waiting for legacy" in sidecar.log.read_text(), sidecar.log)
            wait(lambda: "not registered: nothing accepts" in sidecar.page("/ready")[1])
            assert sidecar.page("/ready")[0] == 503
            assert sidecar.page("/live") == (200, "live\n")
            assert (await consul.instances("legacy")).value == ()

            with socket.create_server(("127.0.0.1", port)):
                sidecar.until_ready()
                (instance,) = (await consul.instances("legacy")).value
                assert (instance.address, instance.port) == ("127.0.0.1", port)
                assert (instance.health, instance.meta["sidecar"]) == (Health.PASSING, "1")
                (check,) = (await consul.checks("legacy")).value
                assert check.output == "policies: defaults"

            async def gone() -> bool:
                return not (await consul.instances("legacy")).value

            await until(gone)
            assert sidecar.page("/ready")[0] == 503
            assert end(sidecar) == 0
        assert "only callers on this machine reach it" in sidecar.log.read_text()


async def test_sigterm_drains_and_the_services_own_calls_go_on(tmp_path, dev_agent):
    """Every call until the sidecar is gone is answered, while callers of the service are told to go elsewhere."""

    async def hello(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    port = free_ports(1)[0]
    answered, states = 0, set()
    async with Consul(dev_agent.url) as consul, served(consul, hello), httpx.AsyncClient(trust_env=False) as http:
        with (
            socket.create_server(("127.0.0.1", port)),
            begun(tmp_path, dev_agent.url, f"name: legacy, port: {port}") as sidecar,
        ):
            sidecar.until_ready()
            sidecar.process.terminate()
            while sidecar.process.poll() is None:
                instances = (await consul.instances("legacy")).value
                states |= {(instance.health, instance.output) for instance in instances} or {"gone"}
                if instances and instances[0].health is Health.MAINTENANCE and answered < 5:
                    answer = await http.get(sidecar.proxy, headers={"host": "hello"})
                    assert answer.text == "hello"
                    answered += 1
                    assert sidecar.page("/ready") == (503, "draining: the sidecar stops\n")
                await asyncio.sleep(0.02)
            assert sidecar.process.wait() == 0, sidecar.log.read_text()
        assert answered == 5
        assert (Health.MAINTENANCE, DRAINING) in states
        assert (await consul.instances("legacy")).value == ()


async def test_a_request_in_flight_is_finished(tmp_path, dev_agent):
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope, receive, send) -> None:
        arrived.set()
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"late"})

    async with Consul(dev_agent.url) as consul, served(consul, slow), httpx.AsyncClient(trust_env=False) as http:
        with begun(tmp_path, dev_agent.url, "name: legacy") as sidecar:
            sidecar.until_ready()
            call = asyncio.ensure_future(http.get(sidecar.proxy, headers={"host": "hello"}))
            await arrived.wait()
            sidecar.process.terminate()
            await asyncio.to_thread(wait, lambda: "stopping" in sidecar.log.read_text(), sidecar.log)
            go_on.set()
            assert (await call).text == "late"
            assert await asyncio.to_thread(sidecar.process.wait, 10) == 0


def test_consul_may_be_away_at_both_ends(tmp_path, dev_agent):
    port = free_ports(1)[0]
    dev_agent.stop()
    with (
        socket.create_server(("127.0.0.1", port)),
        begun(tmp_path, dev_agent.url, f"name: legacy, port: {port}") as sidecar,
        httpx.Client(trust_env=False) as http,
    ):
        wait(lambda: "has not confirmed it" in _page(sidecar), sidecar.log)
        answer = http.get(sidecar.proxy, headers={"host": "payments"})
        assert answer.status_code == 503
        assert dev_agent.url in answer.text
        dev_agent.start()
        sidecar.until_ready()
        dev_agent.stop()
        began = time.monotonic()
        assert end(sidecar) == 0
        assert time.monotonic() - began < 6
    assert "Traceback" not in sidecar.log.read_text()


def _page(sidecar) -> str:
    try:
        return sidecar.page("/ready")[1]
    except OSError:
        return ""


@pytest.mark.parametrize("name", ["outbound", "admin"])
def test_a_taken_port_is_said_with_what_to_write(tmp_path, dev_agent, name):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        sidecar = start(tmp_path, dev_agent.url, "name: legacy", **{name: taken})
        assert sidecar.process.wait(15) == 2
    said = sidecar.log.read_text()
    assert f"cannot listen at http://127.0.0.1:{taken}: Address already in use; write another {name}.port" in said
    assert "Traceback" not in said


def test_metrics_tell_of_calls(sidecar):
    with httpx.Client(trust_env=False) as http:
        http.get(sidecar.proxy, headers={"host": "nobody"})
        assert http.post(f"http://127.0.0.1:{sidecar.admin}/live").status_code == 405
    status, text = sidecar.page("/metrics")
    assert status == 200
    assert "mesh_" in text
    assert sidecar.page("/other") == (404, "the pages are /live, /ready and /metrics\n")

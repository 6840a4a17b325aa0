"""A sidecar's life as a process: the service's presence, the order of the end, and starts that cannot be."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager

import httpx
import pytest

from meshsdk_registry import DRAINING, Consul, Health, Registration
from tests.real_consul import free_ports
from tests.sidecar.conftest import ROOT, end, environment, start, wait
from tests.sidecar.listener import listening


@contextmanager
def begun(tmp_path, consul, service, **more):
    sidecar = start(tmp_path, consul, service, **more)
    try:
        yield sidecar
    finally:
        sidecar.process.kill()
        sidecar.process.wait()


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.02)


async def hello(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@asynccontextmanager
async def served(consul, app):
    """An application registered as `hello`."""
    port = free_ports(1)[0]
    async with listening(app, "127.0.0.1", port):
        registration = Registration("hello", "hello-1", "127.0.0.1", port)
        await consul.register(registration)
        await consul.pass_ttl(registration.check_id)
        yield


# --- presence ---------------------------------------------------------------------------------------------


async def test_the_instance_is_critical_until_the_app_is_well_and_says_why(tmp_path, dev_agent):
    port = free_ports(1)[0]
    more = {"more": "drain: {app: 0s}"}
    service = f"name: legacy, port: {port}, health: {{interval: 200ms, unhealthy: 2}}, version: '7', meta: {{a: b}}"
    async with Consul(dev_agent.url) as consul:

        async def state():
            found = (await consul.instances("legacy")).value
            return [(each.health, each.output) for each in found]

        with begun(tmp_path, dev_agent.url, service, **more) as sidecar:
            silent = f"nothing listens at 127.0.0.1:{port}"

            async def critical() -> bool:
                return await state() == [(Health.CRITICAL, silent)]

            await until(critical)
            assert json.loads(sidecar.page("/ready")[1]) == {"ready": False, "why": silent}
            assert sidecar.page("/ready")[0] == 503
            assert sidecar.page("/live") == (200, '{\n  "live": true\n}\n')
            assert f"waiting for the app: {silent}" in sidecar.log.read_text()

            with socket.create_server(("127.0.0.1", port)):
                sidecar.until_ready()
                (instance,) = (await consul.instances("legacy")).value
                assert (instance.address, instance.port) == ("127.0.0.1", sidecar.inbound)
                assert instance.health is Health.PASSING
                meta = {"mesh": "1", "sidecar": "1", "protocol": "http", "mesh-tls": "permissive", "version": "7"}

                async def certified() -> bool:  # it is told as soon as it is: the app may be well before
                    return [one.meta for one in (await consul.instances("legacy")).value] == [{**meta, "a": "b"}]

                await until(certified)
                (check,) = (await consul.checks("legacy")).value
                assert check.output == "policies: defaults"

            await until(critical)
            assert sidecar.page("/ready")[0] == 503
            assert end(sidecar) == 0
        assert await state() == []
        assert "only callers on this machine reach it" in sidecar.log.read_text()


async def test_what_the_policy_says_of_tls_is_told(tmp_path, dev_agent):
    port = free_ports(1)[0]
    async with Consul(dev_agent.url) as consul:

        async def told_until(expected: str) -> None:  # as soon as there is a certificate: the app may be well before
            async def told() -> bool:
                found = (await consul.instances("legacy")).value
                return [one.meta.get("mesh-tls", "none") for one in found] == [expected]

            await until(told)

        with (
            socket.create_server(("127.0.0.1", port)),
            begun(tmp_path, dev_agent.url, f"name: legacy, port: {port}") as sidecar,
        ):
            sidecar.until_ready()
            await told_until("permissive")
            for mode, expected in (("strict", "strict"), ("'off'", "none")):
                await consul.put("mesh/policy/legacy", f"version: 1\ntls: {{mode: {mode}}}".encode())
                await told_until(expected)


# --- the end ----------------------------------------------------------------------------------------------


async def test_sigterm_drains_and_the_apps_own_calls_go_on_until_it_has_gone(tmp_path, dev_agent):
    """Callers are told, the instance leaves, and the way out stays open for as long as the app's port is."""
    port = free_ports(1)[0]
    answered, states = 0, set()
    more = {"more": "drain: {wait: 500ms, app: 20s}"}
    async with Consul(dev_agent.url) as consul, served(consul, hello), httpx.AsyncClient(trust_env=False) as http:
        app = socket.create_server(("127.0.0.1", port))
        with begun(tmp_path, dev_agent.url, f"name: legacy, port: {port}", **more) as sidecar:
            sidecar.until_ready()
            sidecar.process.terminate()
            while sidecar.process.poll() is None:
                instances = (await consul.instances("legacy")).value
                states |= {(instance.health, instance.output) for instance in instances} or {"gone"}
                if answered < 10:
                    answer = await http.get(sidecar.proxy, headers={"host": "hello"})
                    assert answer.text == "hello"
                    answered += "gone" in states
                    ready = {"ready": False, "why": "draining: callers are sent elsewhere"}
                    assert json.loads(sidecar.page("/ready")[1]) == ready
                else:
                    app.close()
                await asyncio.sleep(0.02)
            assert sidecar.process.wait() == 0, sidecar.log.read_text()
        assert answered == 10
        assert (Health.MAINTENANCE, DRAINING) in states
        assert (await consul.instances("legacy")).value == ()


async def test_what_came_in_is_finished(tmp_path, dev_agent):
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope, receive, send) -> None:
        arrived.set()
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"late"})

    port = free_ports(1)[0]
    async with listening(slow, "127.0.0.1", port), httpx.AsyncClient(trust_env=False) as http:
        with begun(tmp_path, dev_agent.url, f"name: legacy, port: {port}") as sidecar:
            sidecar.until_ready()
            call = asyncio.ensure_future(http.get(f"http://127.0.0.1:{sidecar.inbound}/"))
            await arrived.wait()
            sidecar.process.terminate()
            await asyncio.to_thread(wait, lambda: "deregistered" in sidecar.log.read_text(), sidecar.log)
            go_on.set()
            assert (await call).text == "late"
            assert await asyncio.to_thread(sidecar.process.wait, 10) == 0


async def test_a_call_of_the_app_in_flight_is_finished(tmp_path, dev_agent):
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope, receive, send) -> None:
        arrived.set()
        await go_on.wait()
        await hello(scope, receive, send)

    async with Consul(dev_agent.url) as consul, served(consul, slow), httpx.AsyncClient(trust_env=False) as http:
        with begun(tmp_path, dev_agent.url, "name: legacy", more="drain: {app: 10s}") as sidecar:
            sidecar.until_ready()
            call = asyncio.ensure_future(http.get(sidecar.proxy, headers={"host": "hello"}))
            await arrived.wait()
            sidecar.process.terminate()
            await asyncio.to_thread(wait, lambda: "stopping" in sidecar.log.read_text(), sidecar.log)
            go_on.set()
            assert (await call).text == "hello"
            assert await asyncio.to_thread(sidecar.process.wait, 10) == 0


def test_a_second_signal_ends_it_at_once(tmp_path, dev_agent):
    port = free_ports(1)[0]
    with (
        socket.create_server(("127.0.0.1", port)),
        begun(tmp_path, dev_agent.url, f"name: legacy, port: {port}", more="drain: {wait: 1m}") as sidecar,
    ):
        sidecar.until_ready()
        sidecar.process.terminate()
        wait(lambda: "put into maintenance" in sidecar.log.read_text(), sidecar.log)
        sidecar.process.send_signal(signal.SIGINT)
        assert sidecar.process.wait(5) == 128 + signal.SIGINT


async def test_drain_by_the_page_leaves_the_way_out_open(tmp_path, dev_agent):
    port = free_ports(1)[0]
    async with Consul(dev_agent.url) as consul, served(consul, hello), httpx.AsyncClient(trust_env=False) as http:
        with (
            socket.create_server(("127.0.0.1", port)),
            begun(tmp_path, dev_agent.url, f"name: legacy, port: {port}") as sidecar,
        ):
            sidecar.until_ready()
            pages = f"http://127.0.0.1:{sidecar.admin}"
            assert (await http.get(f"{pages}/drain")).status_code == 405
            assert (await http.post(f"{pages}/drain")).status_code == 202

            async def gone() -> bool:
                return not (await consul.instances("legacy")).value

            await until(gone)
            wait(lambda: "drained" in sidecar.log.read_text(), sidecar.log)
            with pytest.raises(httpx.ConnectError):
                await http.get(f"http://127.0.0.1:{sidecar.inbound}/")
            assert (await http.get(sidecar.proxy, headers={"host": "hello"})).text == "hello"
            assert (await http.post(f"{pages}/drain")).status_code == 202, "asked again it is no second drain"
            assert end(sidecar) == 0


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


# --- the app as a child -----------------------------------------------------------------------------------

CHILD = """
import http.server, os, signal, sys, threading, urllib.request
port, out, code = map(int, sys.argv[1:4])
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "5"); self.end_headers(); self.wfile.write(b"child")
    def log_message(self, *words): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Page)
def end(*_):
    request = urllib.request.Request(f"http://127.0.0.1:{out}/", headers={"Host": "hello"})
    print("last call:", urllib.request.urlopen(request, timeout=5).read().decode(), flush=True)
    threading.Thread(target=server.shutdown).start()
signal.signal(signal.SIGTERM, end)
print("child", os.getpid(), flush=True)
server.serve_forever()
sys.exit(code)
"""


async def test_a_child_is_told_after_the_drain_calls_others_to_the_last_and_its_code_is_ours(tmp_path, dev_agent):
    port, out = free_ports(2)
    command = [sys.executable, "-c", CHILD, str(port), str(out), "7"]
    async with Consul(dev_agent.url) as consul, served(consul, hello), httpx.AsyncClient(trust_env=False) as http:
        service = f"name: legacy, port: {port}"
        more = {"outbound": out, "command": command, "more": "drain: {app: 15s}"}
        with begun(tmp_path, dev_agent.url, service, **more) as sidecar:
            sidecar.until_ready()
            assert (await http.get(f"http://127.0.0.1:{sidecar.inbound}/")).text == "child"
            sidecar.process.terminate()
            assert await asyncio.to_thread(sidecar.process.wait, 15) == 7
    log = sidecar.log.read_text()
    assert log.index("drained") < log.index("last call: hello") < log.index("the app has ended with 7")
    assert _ended(log)


def test_a_child_that_ends_by_itself_ends_the_sidecar(tmp_path, dev_agent):
    command = [sys.executable, "-c", "import sys; sys.exit(3)"]
    with begun(tmp_path, dev_agent.url, "name: legacy", command=command) as sidecar:
        assert sidecar.process.wait(15) == 3
    assert "Traceback" not in sidecar.log.read_text()


def test_a_child_dies_with_a_sidecar_that_is_killed(tmp_path, dev_agent):
    command = [sys.executable, "-u", "-c", "import os, time; print('child', os.getpid()); time.sleep(60)"]
    with begun(tmp_path, dev_agent.url, "name: legacy", command=command) as sidecar:
        wait(lambda: "child " in sidecar.log.read_text(), sidecar.log)
        sidecar.process.kill()
        sidecar.process.wait()
        wait(lambda: _ended(sidecar.log.read_text()))


def _ended(log: str) -> bool:
    number = int(log.partition("child ")[2].split()[0])
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    return False


# --- starts that cannot be ---------------------------------------------------------------------------------


def test_a_taken_port_is_said_with_what_to_write(tmp_path, dev_agent):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        sidecar = start(tmp_path, dev_agent.url, "name: legacy", admin=taken)
        assert sidecar.process.wait(15) == 2
    said = sidecar.log.read_text()
    assert f"cannot listen at 127.0.0.1:{taken}: Address already in use; write another admin.port" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--exec"], "write the command after --, such as: --exec -- node app.js"),
        (["--", "node"], "write --exec before --"),
        (["--exec", "--", "no-such-program"], "'no-such-program' is no program that is found here"),
    ],
)
def test_a_command_that_cannot_be(tmp_path, words, said):
    (tmp_path / "s.yaml").write_text("service: {name: legacy}")
    done = subprocess.run(
        [sys.executable, "-m", "meshsdk.cli", "sidecar", "-c", str(tmp_path / "s.yaml"), *words],
        env=environment(tmp_path, "http://127.0.0.1:1"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_metrics_tell_of_calls(sidecar):
    with httpx.Client(trust_env=False) as http:
        http.get(sidecar.proxy, headers={"host": "nobody"})
        assert http.post(f"http://127.0.0.1:{sidecar.admin}/live").status_code == 405
    status, text = sidecar.page("/metrics")
    assert status == 200
    assert "mesh_" in text

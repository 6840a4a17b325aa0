"""What a serving process has in memory: only what serving needs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from meshsdk_registry import Consul
from meshsdk_registry.agent import running_agent
from tests.real_consul import free_ports
from tests.sidecar.conftest import Sidecar, environment, wait

# Together some 45 MB of each sidecar, for as long as it lives. httpx imports rich and click, for a command line of its
# own; py-consul imports requests, for a transport of its own, and importlib.metadata, for its version; certificates are
# examined by another process; what is in anyio is for trio, and what is in encodings.idna for names that are not ASCII.
ABSENT = {
    "anyio",
    "click",
    "consul.std",
    "cryptography",
    "ctypes",
    "encodings.idna",
    "fastapi",
    "grpc",
    "h2",
    "httpcore",
    "httpx",
    "importlib.metadata",
    "jwt",
    "opentelemetry.sdk",
    "pydantic",
    "pygments",
    "requests",
    "rich",
    "starlette",
    "tempfile",
    "trio",
    "typer",
    "urllib3",
    "uvicorn",
}

# The same, of ours: what an application in Python needs and a proxy does not.
OURS_ABSENT = {
    "meshsdk.cli",
    "meshsdk.client",
    "meshsdk.identity.examination",
    "meshsdk.server.asgi",
    "meshsdk.server.server",
    "meshsdk.wire.blocking",
    "meshsdk.wire.httpcore_engine",
    "meshsdk_sidecar.control",  # of several workers
    "meshsdk_sidecar.gateway.ledger",
    "meshsdk_sidecar.link",
}


def loaded(module: str) -> set[str]:
    program = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.fixture
def renewing_agent() -> Iterator[str]:
    """One that gives new certificates soon after its CA is another."""
    with running_agent(rotation_jitter=0.5) as agent:
        yield agent.url


async def rotate(consul: str) -> None:
    async with Consul(consul) as client:
        await client.rotate_ca()


@pytest.fixture(scope="module")
def serving() -> set[str]:
    return loaded("meshsdk_sidecar.process, uvloop")


def test_nothing_is_loaded_that_serving_does_not_need(serving):
    assert {"meshsdk_sidecar.proxy.plane", "meshsdk.discovery.directory", "consul.base"} <= serving, (
        "it is the real one"
    )
    assert not serving & ABSENT
    assert not serving & OURS_ABSENT


MOST = 45
"""MB at the peak of a sidecar that has had two certificates and has carried a call; 38 when this was written: Python's
own 9, TLS 6, asyncio with uvloop 6, and 17 of code, ours and that of libraries. Without .pyc files it is 5 more."""

SERVED = """
import json, sys
from meshsdk_sidecar.__main__ import main
code = main(["-c", sys.argv[1]])
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([code, peak, sorted(sys.modules)]))
"""


def _serial(sidecar: Sidecar) -> str:
    found: str = json.loads(sidecar.page("/certs")[1])["serial"]
    return found


def test_nor_while_it_serves(tmp_path, renewing_agent):
    """What is imported when it is needed is not needed to be registered, certified, to carry a call both ways and to
    have the certificate renewed."""
    out, admin, inbound, port = free_ports(4)
    (tmp_path / "s.yaml").write_text(
        f"service: {{name: lean, port: {port}}}\noutbound: {{port: {out}}}\nadmin: {{port: {admin}}}\n"
        f"inbound: {{address: 127.0.0.1, port: {inbound}}}\ndrain: {{app: 0s}}\n"
    )
    app = ThreadingHTTPServer(("127.0.0.1", port), SimpleHTTPRequestHandler)
    app.daemon_threads = False  # so that its end awaits them, and their sockets
    threading.Thread(target=app.serve_forever, daemon=True).start()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVED, str(tmp_path / "s.yaml")],
            env=environment(tmp_path, renewing_agent),
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        sidecar = Sidecar(process, out, admin, inbound, tmp_path / "log", renewing_agent)
        sidecar.until_ready()
        request = urllib.request.Request(sidecar.proxy, method="HEAD", headers={"Host": "lean"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
        serial = _serial(sidecar)
        asyncio.run(rotate(renewing_agent))
        wait(lambda: _serial(sidecar) != serial, tmp_path / "log", 30)
        process.terminate()
        code, peak, modules = json.loads(process.communicate(timeout=20)[0])
    finally:
        process.kill()
        process.wait()
        app.shutdown()
        app.server_close()
    assert code == 0
    assert not set(modules) & ABSENT - {"encodings.idna"}  # by it, ssl encodes any server's name, "" too
    assert not set(modules) & OURS_ABSENT
    assert peak / 1024 < MOST


def test_the_file_is_read_without_any_of_it():
    """`meshsdk sidecar` reads the file before it becomes the serving process."""
    assert not loaded("meshsdk_sidecar.app") & {*ABSENT, "meshsdk.mesh"}


def test_py_consul_is_whole_for_whoever_wants_it():
    program = (
        "import sys, meshsdk_registry; assert 'requests' not in sys.modules;"
        "import consul; assert consul.Consul.__module__ == 'consul.std';"
        "from consul import Consul; import consul.std; assert Consul is consul.std.Consul; consul.Consul().agent;"
        "assert not hasattr(consul, 'nothing')"
    )
    subprocess.run([sys.executable, "-P", "-c", program], check=True)

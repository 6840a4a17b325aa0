"""What a serving process has in memory: only what serving needs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.real_consul import free_ports
from tests.sidecar.conftest import Sidecar, environment

# Together some 20 MB of each sidecar, for as long as it lives. httpx imports rich and click, for a command line of its
# own; py-consul imports requests, for a transport of its own.
ABSENT = {
    "click",
    "fastapi",
    "grpc",
    "h2",
    "httpcore",
    "httpx",
    "jwt",
    "opentelemetry.sdk",
    "pygments",
    "requests",
    "rich",
    "starlette",
    "trio",
    "typer",
    "urllib3",
    "uvicorn",
}

# The same, of ours: what an application in Python needs and a proxy does not.
OURS_ABSENT = ("meshsdk.client", "meshsdk.cli", "meshsdk.wire.blocking", "meshsdk.wire.httpcore_engine")


def loaded(module: str) -> set[str]:
    program = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.fixture(scope="module")
def serving() -> set[str]:
    return loaded("meshsdk_sidecar.process, uvloop")


def test_nothing_is_loaded_that_serving_does_not_need(serving):
    assert {"meshsdk_sidecar.proxy.plane", "meshsdk.discovery.directory", "consul.base"} <= serving, (
        "it is the real one"
    )
    assert not serving & ABSENT
    assert not serving & set(OURS_ABSENT)


MOST = 75
"""MB at the peak of a sidecar that has a certificate and has carried a call; 61 when this was written, most of it
cryptography (10), pydantic and the policy's models (13), TLS (6) and asyncio with uvloop (6) over Python's own 9."""

SERVED = """
import json, sys
from meshsdk_sidecar.__main__ import main
code = main(["-c", sys.argv[1]])
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([code, peak, sorted(sys.modules)]))
"""


def test_nor_while_it_serves(tmp_path, shared_agent):
    """What is imported when it is needed is not needed to be registered, certified, and to carry a call both ways."""
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
            env=environment(tmp_path, shared_agent),
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        sidecar = Sidecar(process, out, admin, inbound, tmp_path / "log", shared_agent)
        sidecar.until_ready()
        request = urllib.request.Request(sidecar.proxy, method="HEAD", headers={"Host": "lean"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
        process.terminate()
        code, peak, modules = json.loads(process.communicate(timeout=20)[0])
    finally:
        process.kill()
        process.wait()
        app.shutdown()
        app.server_close()
    assert code == 0
    assert not set(modules) & ABSENT
    assert not set(modules) & set(OURS_ABSENT)
    assert peak / 1024 < MOST


def test_the_file_is_read_without_any_of_it():
    """`meshsdk sidecar` reads the file before it becomes the serving process."""
    assert not loaded("meshsdk_sidecar.app") & {*ABSENT, "cryptography", "meshsdk.mesh"}


def test_py_consul_is_whole_for_whoever_wants_it():
    program = (
        "import sys, meshsdk_registry; assert 'requests' not in sys.modules;"
        "import consul; assert consul.Consul.__module__ == 'consul.std';"
        "from consul import Consul; import consul.std; assert Consul is consul.std.Consul; consul.Consul().agent;"
        "assert not hasattr(consul, 'nothing')"
    )
    subprocess.run([sys.executable, "-P", "-c", program], check=True)

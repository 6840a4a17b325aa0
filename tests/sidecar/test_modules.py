"""What a serving process has in memory: only what serving needs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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

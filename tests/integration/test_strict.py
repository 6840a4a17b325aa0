"""Two strict services on a real Consul with Connect, looked at with tools that know nothing of the mesh."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from meshsdk import Mesh
from meshsdk.identity.securing import TLS_META
from tests.integration.interop import Certified
from tests.integration.programs import ROOT, ConsulView, Program, Starter, until
from tests.real_consul import RealConsul

POLICY = "{version: 1, tls: {mode: strict}, authorization: {rules: [{name: no guests, deny: {from: [guest]}}]}}"
SERVICES = ("fastapi", "flask")
FAILURES = "mesh_identity_handshake_failures_total"


@dataclass
class Stage:
    """Both services, and where callers are told to call them."""

    consul: ConsulView
    folder: Path
    programs: dict[str, Program]
    ports: dict[str, int]

    def mesh(self, name: str) -> Mesh:
        folder = self.folder / name
        return Mesh(name, consul_url=self.consul.url, identity="consul", state_dir=folder, runtime_dir=folder)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, real_consul: RealConsul) -> Iterator[Stage]:
    """FastAPI calls Flask where it is asked for /through/await."""
    folder, consul = tmp_path_factory.mktemp("strict"), ConsulView(real_consul.url)
    names = {kind: f"it-strict-{kind}" for kind in SERVICES}
    for name in names.values():
        consul.policy(name, POLICY)
    starter = Starter(consul, folder)
    try:
        config = f"{ROOT}/examples/flask/gunicorn.conf.py"
        options = ("--config", config, "--workers", "2", "--threads", "4")
        programs = {
            "fastapi": starter.uvicorn(names["fastapi"], BACK=names["flask"], MESH_IDENTITY="consul"),
            "flask": starter.gunicorn(
                names["flask"], *options, MESH_IDENTITY="consul", MESH_FORWARD_CLIENT_CERT="true"
            ),
        }
        starter.wait()

        def told(kind: str) -> int | None:
            (found,) = consul.ask("GET", f"health/service/{names[kind]}?passing=1")
            return found["Service"]["Port"] if found["Service"]["Meta"].get(TLS_META) == "strict" else None

        ports = {kind: until(lambda: told(kind), about=lambda: programs[kind].log) for kind in SERVICES}  # noqa: B023
        yield Stage(consul, folder, programs, ports)
    finally:
        starter.end()


def ran(*command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=15, check=False)


def test_calls_succeed(stage: Stage) -> None:
    with stage.mesh("caller") as mesh, mesh.client() as http:
        for kind, path in (("fastapi", "who"), ("flask", "who"), ("fastapi", "through/await")):
            answer = http.get(f"http://{stage.programs[kind].service}/{path}")
            assert answer.status_code == 200, (answer.text, stage.programs[kind].log)
            assert answer.extensions["network_stream"].get_extra_info("ssl_object").version() == "TLSv1.3"
    assert answer.json()["x-forwarded-client-cert"].endswith("/svc/it-strict-fastapi"), "Flask was called by FastAPI"


@pytest.mark.parametrize("kind", SERVICES)
def test_openssl_sees_tls_1_3_and_the_spiffe_id(stage: Stage, kind: str) -> None:
    own = Certified.by(stage.consul, "caller", stage.folder)
    shown = {"-cert": "caller.pem", "-key": "caller.key", "-CAfile": "roots.pem"}
    files = [word for option, file in shown.items() for word in (option, str(stage.folder / file))]
    seen = ran("openssl", "s_client", "-connect", f"127.0.0.1:{stage.ports[kind]}", *files).stdout
    assert "New, TLSv1.3, Cipher is TLS_" in seen
    assert "Verify return code: 0 (ok)" in seen
    names = ran("openssl", "x509", "-noout", "-ext", "subjectAltName", given=seen).stdout
    assert f"URI:{own.id_of(stage.programs[kind].service)}" in names.split()


@pytest.mark.parametrize("kind", SERVICES)
def test_curl_without_a_certificate_is_refused(stage: Stage, kind: str) -> None:
    for port in {stage.ports[kind], stage.programs[kind].port}:
        found = ran("curl", "-s", "-w", "%{http_code}", f"http://127.0.0.1:{port}/who").stdout
        assert found[-3:] in {"400", "403"}
        assert "mutual TLS only" in found, "the hint"
    program = stage.programs[kind]
    before = program.metric(FAILURES)
    secured = ran("curl", "-s", "-S", "-k", f"https://127.0.0.1:{stage.ports[kind]}/who")
    assert (secured.returncode != 0, secured.stdout) == (True, "")
    until(lambda: program.metric(FAILURES) == before + 1, about=lambda: program.log)


@pytest.mark.parametrize("kind", SERVICES)
def test_a_denied_caller_gets_403_and_the_log_names_the_rule(stage: Stage, kind: str) -> None:
    program = stage.programs[kind]
    with stage.mesh("guest") as mesh, mesh.client() as http:
        answer: httpx.Response = http.get(f"http://{program.service}/who")
    assert answer.status_code == 403
    assert "no guests" not in answer.text
    until(lambda: "no guests" in program.log, about=lambda: program.log)


def test_recycled_workers_fail_no_call(stage: Stage, tmp_path: Path) -> None:
    """A new worker takes handshakes from its first moment on: it waits for its certificate, and for the policy.

    Preloaded, as calls follow each other so fast that both workers are away at once: a handshake then waits for as long
    as an import takes, and `timeouts.connect` may be over before.
    """
    service = "it-strict-recycled"
    stage.consul.policy(service, POLICY)
    starter = Starter(stage.consul, tmp_path)
    options = ("--config", f"{ROOT}/examples/flask/gunicorn.conf.py", "--workers", "2", "--threads", "4")
    recycling = ("--max-requests", "20", "--max-requests-jitter", "5", "--preload")
    try:
        program = starter.gunicorn(service, *options, *recycling, MESH_IDENTITY="consul")
        starter.wait()
        until(lambda: stage.consul.passing(service), about=lambda: program.log)
        with stage.mesh("caller") as mesh, mesh.client() as http, ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: http.get(f"http://{service}/who"), range(240)))
        assert {answer.status_code for answer in answers} == {200}, program.log
        assert len({answer.json()["pid"] for answer in answers}) >= 5
    finally:
        starter.end()

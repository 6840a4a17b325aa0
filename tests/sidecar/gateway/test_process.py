"""A gateway as a process: it serves a service of the mesh, follows its certificates, and ends in order."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from tests.real_consul import free_ports
from tests.sidecar.conftest import ROOT, environment
from tests.sidecar.test_modules import ABSENT, OURS_ABSENT, loaded

REFUSED = 'mesh_sidecar_refused_total{mesh_listener="gateway",mesh_reason="target"} 1'
SNI = {"sni_hostname": "shop.example.com"}


async def hello(scope, receive, send) -> None:
    told = {name.decode(): value.decode() for name, value in scope["headers"]}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_gateway_serves_and_ends(tmp_path, shared_agent, upstream, issuer, file):
    https, http, admin = free_ports(3)
    listeners = {"https": {"address": "127.0.0.1", "port": https}, "http": {"address": "127.0.0.1", "port": http}}
    async with upstream(hello) as service:
        file |= {"listeners": listeners, "admin": {"port": admin}, "routes": [{"host": "*", "to": service.name}]}
        (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(file))
        process = _started(tmp_path, shared_agent)
        try:
            async with httpx.AsyncClient(trust_env=False, verify=issuer.client()) as client:
                await _until(client, admin, process, 200)
                found = await client.get(f"https://127.0.0.1:{https}/x", extensions=SNI)
                assert found.json()["x-forwarded-for"] == "127.0.0.1"
                assert found.headers["strict-transport-security"] == "max-age=31536000"
                moved = await client.get(f"http://127.0.0.1:{http}/x?y", headers={"host": "shop.example.com"})
                assert (moved.status_code, moved.headers["location"]) == (301, f"https://shop.example.com:{https}/x?y")
                assert (await client.get(f"https://127.0.0.1:{https}/%zz", extensions=SNI)).status_code == 400
                metrics = (await client.get(f"http://127.0.0.1:{admin}/metrics")).text
                assert [line for line in metrics.splitlines() if "refused" in line and '"gateway"' in line] == [REFUSED]
                (shop, _) = (await client.get(f"http://127.0.0.1:{admin}/certs")).json()["public"]
                assert shop["hosts"] == ["shop.example.com", "www.example.com"]
                process.send_signal(signal.SIGTERM)
                await _until(client, admin, process, 503)
            assert await asyncio.to_thread(process.wait, 15) == 0
            log = (tmp_path / "gateway.log").read_text()
            assert "Traceback" not in log
            assert "--replace: no gateway of this instance runs, so nothing is taken over" in log
        finally:
            process.kill()
            process.wait()


def _started(folder: Path, consul: str) -> subprocess.Popen[bytes]:
    words = ["-m", "meshsdk.cli", "gateway", "-c", str(folder / "gateway.yaml"), "--replace"]
    env = environment(folder, consul)
    with (folder / "gateway.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-P", *words], env=env, cwd=ROOT, stderr=log)


async def _until(client: httpx.AsyncClient, admin: int, process: subprocess.Popen[bytes], ready: int) -> None:
    async with asyncio.timeout(30):  # a busy machine takes its time to begin a process
        while True:
            assert process.poll() is None, "it has ended"
            try:
                if (await client.get(f"http://127.0.0.1:{admin}/ready")).status_code == ready:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)


def test_a_mistake_ends_the_start_with_2(tmp_path, file):
    file["routes"] = [{"host": "other.example.net", "to": "shop"}]
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(file))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "meshsdk_sidecar.gateway", "-c", str(tmp_path / "gateway.yaml")],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2
    assert "routes[0].host: no certificate is for other.example.net" in done.stderr


def test_nothing_is_loaded_that_serving_does_not_need():
    found = loaded("meshsdk_sidecar.gateway.__main__, meshsdk_sidecar.gateway.process, uvloop")
    assert "meshsdk_sidecar.gateway.front" in found
    needed = {"cryptography", "meshsdk.identity.examination"}  # certificates for the public are chosen by their names
    assert not found & {*ABSENT, *OURS_ABSENT} - needed


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--workers", "0"], "--workers 0: write 1 to 256"),
        (["--workers", "two"], "usage: python -m meshsdk_sidecar.gateway -c FILE [--workers N] [--replace]"),
        (["--exec", "--", "true"], "usage: python -m meshsdk_sidecar.gateway -c FILE [--workers N] [--replace]"),
    ],
)
def test_what_is_no_way_to_start_it(tmp_path, file, words, why):
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(file))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "meshsdk_sidecar.gateway", "-c", str(tmp_path / "gateway.yaml"), *words],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, f"error: {why}\n")


def test_the_number_of_workers_is_passed_on(tmp_path, file):
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(file))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "meshsdk.cli", "gateway", "-c", str(tmp_path / "gateway.yaml"), "--workers", "0"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "error: --workers 0: write 1 to 256\n")

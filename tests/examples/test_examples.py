"""The examples, started by exactly the lines of their READMEs, on ports of the test's own: they call each other."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from meshsdk_registry import Consul
from tests.real_consul import free_ports

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def lines_of(example: str) -> list[str]:
    """The README's shell lines."""
    text = (EXAMPLES / example / "README.md").read_text()
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return block.strip().splitlines()


@contextmanager
def running(example: str, port: int, consul: str, tmp_path: Path) -> Iterator[None]:
    """Run the README's second line, with its port replaced by ours."""
    _, line = lines_of(example)
    (written,) = set(re.findall(r"\b80\d\d\b", line))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESH_", "CONSUL_"))}
    env = kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CONSUL_HTTP_ADDR": consul,
        "MESH_STATE_DIR": str(tmp_path / f"state-{port}"),
        "MESH_RUNTIME_DIR": str(tmp_path / "run"),
    }
    log = tmp_path / f"{example}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-c", line.replace(written, str(port))],  # which becomes the server itself
            cwd=EXAMPLES / example,
            env=env,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield
        process.terminate()
        process.wait(15)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.mark.parametrize("example", ["fastapi", "flask"])
def test_the_first_line_installs_the_checkout_with_what_the_second_runs(example):
    first, second = lines_of(example)
    (folder, extra) = re.fullmatch(r"pip install -e '(.*)\[(\w+)\]'", first).groups()
    project = tomllib.loads((EXAMPLES / example / folder / "pyproject.toml").read_text())["project"]
    installed = {*project["optional-dependencies"][extra], *project["optional-dependencies"]["server"]}
    server = re.match(r"MESH_PORT=80\d\d (uvicorn|gunicorn) app:app ", second)[1]
    for name in (example, server):
        assert any(each.startswith(name) for each in installed), name


async def test_they_find_and_call_each_other(dev_agent, tmp_path):
    checkout, payments = free_ports(2)
    async with Consul(dev_agent.url) as consul, httpx.AsyncClient(trust_env=False) as http:
        with (
            running("flask", payments, dev_agent.url, tmp_path),
            running("fastapi", checkout, dev_agent.url, tmp_path),
        ):
            for service in ("checkout", "payments"):
                await _registered(consul, service)
            answer = await http.get(f"http://127.0.0.1:{checkout}/buy/7", timeout=10)
            assert answer.json() == {"order": 7, "payment": {"order": 7, "charged": 107, "by": payments}}
            async with asyncio.timeout(15):  # it is, once the mesh's callers can come in
                while (await http.get(f"http://127.0.0.1:{payments}/-/mesh/ready")).text != "ready\n":  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        for service in ("checkout", "payments"):
            assert (await consul.instances(service)).value == (), "SIGTERM takes a service out of Consul"


async def _registered(consul: Consul, service: str) -> None:
    end = time.monotonic() + 15
    answer = await consul.instances(service)
    while not any(instance.health == "passing" for instance in answer.value):
        assert time.monotonic() < end, f"{service} never came"
        answer = await consul.instances(service, index=answer.index, wait=1)

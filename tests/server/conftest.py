"""Fixtures of the served side: an intake whose clock and events the test holds."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from meshsdk.server.inbound import Intake
from meshsdk.telemetry.requests import RequestEnded, RequestStarted
from meshsdk.telemetry.tracing import Tracing
from tests.real_consul import free_ports


@dataclass
class Told:
    """What telemetry was told."""

    events: list[RequestStarted | RequestEnded] = field(default_factory=list)

    def __call__(self, event: RequestStarted | RequestEnded) -> None:
        self.events.append(event)

    @property
    def ended(self) -> list[RequestEnded]:
        return [event for event in self.events if isinstance(event, RequestEnded)]

    def only(self) -> RequestEnded:
        """The one request there was: started once, ended once."""
        assert [type(event) for event in self.events] == [RequestStarted, RequestEnded]
        return self.ended[0]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def intake(told: Told) -> Intake:
    return Intake(clock=time.monotonic, tracing=Tracing(), sink=told)


@pytest.fixture
def make_intake(told: Told) -> Any:
    return lambda **more: Intake(clock=time.monotonic, tracing=Tracing(), sink=told, **more)


APPS = Path(__file__).parent / "apps"


class Consul:
    """Looks at Consul as a caller would."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/v1/{path}", timeout=5) as answer:
            return json.load(answer)

    def instances(self, service: str) -> dict[str, str]:
        """Instance ids with the worst status of their checks; `maintenance` where one was put into it."""
        found = {}
        for entry in self.get(f"health/service/{service}"):
            statuses = {
                "maintenance" if c["CheckID"].startswith("_service_maintenance") else c["Status"]
                for c in entry["Checks"]
            }
            worst = next(s for s in ("maintenance", "critical", "warning", "passing") if s in statuses)
            found[entry["Service"]["ID"]] = worst
        return found


class Program:
    """A server in a process of its own, serving one of the small applications."""

    def __init__(self, consul: str, folder: Path, port: int, command: list[str], **env: str) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / f"program-{port}-{time.monotonic_ns()}.log"
        settings = {
            "MESH_SERVICE": "shop",
            "MESH_PORT": str(port),
            "MESH_RUNTIME_DIR": str(folder / "run"),
            "MESH_STATE_DIR": str(folder / "state"),
            "MESH_DRAIN_WAIT": "0.4",
            "CONSUL_HTTP_ADDR": consul,
            "PYTHONPATH": f"{APPS}:{APPS.parents[2]}:{APPS.parents[2]}/registry",
            **env,
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=APPS,
                env={**os.environ, **settings},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str, timeout: float = 5.0) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=timeout) as answer:
            return json.load(answer)

    def text(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 15.0) -> int:
        return self.process.wait(seconds)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def until(what: Callable[[], Any], seconds: float = 15.0, about: Callable[[], object] = lambda: "") -> Any:
    """Poll until `what` gives something true."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if found := what():
                return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {about()}"
        time.sleep(0.02)


@pytest.fixture
def consul(request: pytest.FixtureRequest) -> Consul:
    """The dev agent, or the fixture a test names."""
    return Consul(request.getfixturevalue(getattr(request, "param", "dev_agent")).url)


@pytest.fixture
def start(consul: Consul, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts programs against the dev agent and ends them with the test."""
    programs: list[Program] = []

    def starting(*command: str, port: int, **env: str) -> Program:
        programs.append(Program(consul.url, tmp_path, port, list(command), **env))
        return programs[-1]

    yield starting
    for program in programs:
        program.end()


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def eventually() -> Callable[..., Any]:
    return until

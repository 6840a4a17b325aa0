"""Servers in processes of their own, uvicorn in threads of ours, and a look at Consul: what the tests are made of."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import uvicorn

from tests.real_consul import free_ports

__all__ = ["APPS", "ConsulView", "Program", "Site", "Starter", "until"]

APPS = Path(__file__).parent / "apps"
ROOT = APPS.parents[2]


def until(what: Callable[[], Any], seconds: float = 15.0, about: Callable[[], object] = lambda: "") -> Any:
    """Poll until `what` gives something true; a server that is not there yet is waited for."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if found := what():
                return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {about()}"
        time.sleep(0.02)


class ConsulView:
    """Speaks to Consul as a person with curl does."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{self.url}/v1/{path}", body, method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else None

    def policy(self, service: str, text: str | bytes) -> None:
        self.ask("PUT", f"kv/mesh/policy/{service}", text.encode() if isinstance(text, str) else text)

    def add(self, service: str, port: int, *, node: str = "elsewhere", **facts: Any) -> None:
        """Write an instance into the catalog, as it is, with a check that passes."""
        entry = {"ID": f"{service}-{port}", "Service": service, "Address": "127.0.0.1", "Port": port, **facts}
        check = {"Node": node, "CheckID": f"c-{entry['ID']}", "ServiceID": entry["ID"], "Status": "passing"}
        body = {"Node": node, "Address": "127.0.0.2", "SkipNodeUpdate": False, "Service": entry, "Check": check}
        self.ask("PUT", "catalog/register", json.dumps(body).encode())

    def remove(self, service: str, port: int, *, node: str = "elsewhere") -> None:
        body = {"Node": node, "ServiceID": f"{service}-{port}"}
        self.ask("PUT", "catalog/deregister", json.dumps(body).encode())

    def passing(self, service: str) -> list[str]:
        """Ids of the instances that a caller would call."""
        return [entry["Service"]["ID"] for entry in self.ask("GET", f"health/service/{service}?passing=1")]


class Program:
    """A server in a process of its own, serving one of the small applications."""

    def __init__(self, consul: str, folder: Path, port: int, command: list[str], **env: str) -> None:
        self.port = port
        self.service = env["MESH_SERVICE"]
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / f"program-{port}-{time.monotonic_ns()}.log"
        settings = {
            "MESH_PORT": str(port),
            "MESH_ADDRESS": "127.0.0.1",
            "MESH_RUNTIME_DIR": str(folder / "run"),
            "MESH_STATE_DIR": str(folder / f"state-{port}"),
            "MESH_DRAIN_WAIT": "0.2",
            "CONSUL_HTTP_ADDR": consul,
            "PYTHONPATH": f"{APPS}:{ROOT}:{ROOT}/registry",
            **env,
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=APPS,
                env={**os.environ, **settings},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str, headers: dict[str, str] | None = None) -> Any:
        return json.loads(self.text(path, headers)[1])

    def text(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        request = urllib.request.Request(self.url + path, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str, label: str = "") -> float:
        """The sum of a metric's samples on the metrics page, of those with `label` in their labels."""
        page = self.text("/-/mesh/metrics")[1]
        found = re.findall(rf"^{name}(?:\{{([^}}]*)\}})? (\S+)$", page, re.MULTILINE)
        return sum(float(value) for labels, value in found if label in labels)

    def end(self) -> int:
        """End it as an operator would, and say with what code it did."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


class Starter:
    """Starts the small applications of `apps/` and waits until Consul lists them; `end` ends them all."""

    def __init__(self, consul: ConsulView, folder: Path) -> None:
        self.consul = consul
        self.folder = folder
        self.programs: list[Program] = []

    def program(self, service: str, *command: str, port: int = 0, **env: str) -> Program:
        """Start a command; `{port}` in it becomes the port."""
        port = port or free_ports(1)[0]
        words = [word.format(port=port) for word in command]
        self.programs.append(Program(self.consul.url, self.folder, port, words, MESH_SERVICE=service, **env))
        return self.programs[-1]

    def uvicorn(self, service: str, app: str = "front:app", **env: str) -> Program:
        return self.program(service, "-m", "uvicorn", app, "--port", "{port}", "--log-level", "warning", **env)

    def gunicorn(self, service: str, *options: str, app: str = "back:app", **env: str) -> Program:
        given = ("--bind", "127.0.0.1:{port}", "--log-level", "warning", "--no-control-socket", *options)
        return self.program(service, "-m", "gunicorn", app, *given, **env)

    def wait(self) -> None:
        """Until every program that runs is passing in Consul and says itself that it is ready."""
        for program in self.programs:
            until(lambda: program.text("/-/mesh/ready")[0] == 200, about=lambda: program.log)  # noqa: B023
            until(
                lambda: any(i.endswith(f"-{program.port}") for i in self.consul.passing(program.service)),  # noqa: B023
                about=lambda: (self.consul.passing(program.service), program.log),  # noqa: B023
            )

    def end(self) -> None:
        for program in reversed(self.programs):
            program.end()


class Site:
    """A real uvicorn in a thread of ours around any ASGI application, without a mesh of its own.

    It counts the requests that reach it.
    """

    def __init__(self, app: Callable[..., Any], host: str = "127.0.0.1") -> None:
        self.port = free_ports(1)[0]
        self.hits: list[str] = []
        self._app = app
        config = uvicorn.Config(
            self._counted, host=host, port=self.port, log_level="error", lifespan="off", interface="asgi3"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name=f"site-{self.port}")

    async def _counted(self, scope: Any, receive: Any, send: Any) -> None:
        self.hits.append(f"{scope['method']} {scope['path']}")
        await self._app(scope, receive, send)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

"""The demo's stage: the embedded registry and the example services as real processes, ended whatever happens."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

import meshsdk
from meshsdk.config import inherited_environment, load
from meshsdk.errors import ConfigError
from meshsdk_registry.agent import AgentThread, running_agent

__all__ = ["Stage", "examples_folder"]


_PATIENCE = 3.0
"""Seconds a service may take to end before it is killed."""

_NEEDED = ("fastapi", "flask", "gunicorn", "uvicorn")


def examples_folder() -> Path:
    """Where the example services are: beside the package in a checkout.

    Raises:
        ConfigError: this installation came without them, or without what they run on.
    """
    folder = Path(meshsdk.__file__).resolve().parent.parent / "examples"
    if not (folder / "flask" / "app.py").exists():
        raise ConfigError(f"the demo runs the example services, and there are none in {folder}: run it in a checkout")
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"the demo needs {name}, which is not installed: pip install 'meshsdk[examples]'")
    return folder


@dataclass(slots=True)
class Stage:
    """The dev agent and the processes of one demo; a context manager that leaves nothing behind."""

    agent: AgentThread = field(init=False)
    folder: Path = field(init=False)
    _examples: Path = field(init=False)
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Stage:
        self._examples = examples_folder()
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshsdk-demo-")))
            self.agent = stack.enter_context(running_agent(port=0))
            stack.enter_context(self._all_ended())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextmanager
    def _all_ended(self) -> Iterator[None]:
        try:
            yield
        finally:
            with _undisturbed():
                for process in self.processes.values():
                    _signal(process, signal.SIGTERM)
                for process in self.processes.values():
                    _end(process)

    def start_flask(self) -> int:
        """Start one instance of the Flask example under gunicorn; its port is the answer."""
        port = _free_port()
        gunicorn = ["gunicorn", "app:app", "--bind", f"127.0.0.1:{port}", "--threads", "8"]
        return self._start("flask", port, gunicorn)

    def start_fastapi(self) -> int:
        """Start one instance of the FastAPI example under uvicorn; its port is the answer."""
        port = _free_port()
        return self._start("fastapi", port, ["uvicorn", "app:app", "--port", str(port), "--log-level", "warning"])

    def mesh_port(self, port: int) -> int:
        """Where callers in the mesh find the FastAPI instance that was started at `port`."""
        found = load({"service": "checkout", "port": port}, {}).mesh_port
        assert found is not None
        return found

    def kill(self, port: int) -> None:
        """End the instance at `port` and its workers at once, as a crash or the kernel's memory killer would."""
        _signal(self.processes[port], signal.SIGKILL)
        self.processes[port].wait(10)

    def stopped(self) -> dict[int, str]:
        """What the processes that ended on their own wrote, by port."""
        return {
            port: self._log(port).read_text(errors="replace")[-2000:]
            for port, process in self.processes.items()
            if process.poll() not in {None, -signal.SIGKILL}
        }

    def _start(self, example: str, port: int, command: list[str]) -> int:
        with self._log(port).open("wb") as log:
            self.processes[port] = _spawn(command, self._examples / example, self._environment(port), log)
        return port

    def _log(self, port: int) -> Path:
        return self.folder / f"{port}.log"

    def _environment(self, port: int) -> dict[str, str]:
        return inherited_environment() | {
            "CONSUL_HTTP_ADDR": self.agent.url,
            "MESH_PORT": str(port),
            "MESH_ADDRESS": "127.0.0.1",
            "MESH_STATE_DIR": str(self.folder / f"state-{port}"),
            "MESH_RUNTIME_DIR": str(self.folder / "run"),
            "MESH_DRAIN_WAIT": "0",  # nobody calls any more when they are ended
        }


def _spawn(command: list[str], folder: Path, environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """In a session of its own, so that a crash takes the workers along and Ctrl-C reaches the demo first."""
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=dict(environment),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        os.killpg(process.pid, number)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """An impatient second Ctrl-C must not leave processes behind; what runs here is bounded."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        _signal(process, signal.SIGKILL)
        process.wait(10)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port

"""Fixtures every test folder may use: a real Consul, and the dev agent."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshsdk_registry.agent import AgentThread, running_agent

ROOT = Path(__file__).parent.parent
BINARY = ROOT / ".cache/consul/usr/bin/consul"


class RealConsul:
    """A `consul agent -dev` on free ports of the loopback; it may be stopped and started again, and then is empty."""

    def __init__(self, *config: str) -> None:
        if not BINARY.exists():
            pytest.fail(f"no Consul at {BINARY}: run scripts/install-consul", pytrace=False)
        self._config = config
        self._ports = free_ports(4)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports[0]}"

    def start(self, *, empty: bool = True) -> None:
        assert empty, "consul agent -dev keeps nothing"
        http, server, lan, wan = map(str, self._ports)
        command = [str(BINARY), "agent", "-dev", "-bind", "127.0.0.1", "-log-level", "err", "-node", "real"]
        command += ["-http-port", http, "-server-port", server, "-serf-lan-port", lan, "-serf-wan-port", wan]
        command += ["-dns-port", "-1", "-grpc-port", "-1", *self._config]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._ready():
            assert self._process.poll() is None, f"consul ended with {self._process.returncode}: {' '.join(command)}"
            assert time.monotonic() < deadline, "consul was not ready within 20 s"
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v1/catalog/nodes?token=root", timeout=1) as answer:
                return b'"real"' in answer.read()
        except OSError:
            return False


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


@pytest.fixture(scope="session")
def real_consul() -> Iterator[RealConsul]:
    """One Consul for the whole session: use names of your own, and leave it running."""
    consul = RealConsul()
    try:
        consul.start()
        yield consul
    finally:
        consul.stop()


@pytest.fixture
def own_consul() -> Iterator[RealConsul]:
    """A Consul of the test's own, running: for tests that stop it."""
    consul = RealConsul()
    try:
        consul.start()
        yield consul
    finally:
        consul.stop()


@pytest.fixture
def dev_agent() -> Iterator[AgentThread]:
    """A dev agent of the test's own on a thread of its own: `.url`, `.stop()`, `.start(empty=True)`."""
    with running_agent() as agent:
        yield agent

"""A real Consul as a process, for tests and benchmarks."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

__all__ = ["BINARY", "RealConsul", "free_ports"]

_chance = random.SystemRandom()  # hypothesis seeds the ordinary one, alike in every process

BINARY = Path(__file__).parent.parent / ".cache/consul/usr/bin/consul"


class RealConsul:
    """A `consul agent -dev` on free ports of the loopback; it may be stopped and started again, and then is empty."""

    def __init__(self, *config: str) -> None:
        if not BINARY.exists():
            raise FileNotFoundError(f"no Consul at {BINARY}: run scripts/install-consul")
        self._config = config
        self._ports = free_ports(4)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

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
    """Ports nobody listens on now, and for each one, 10,000 above it, which is the mesh's own beside an application's.

    Both lie below those that the system gives to outgoing connections: one of them could take a port before its server
    does. Test processes that run side by side choose among different ones.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 4
    among = range(11_000 + 2_500 * worker, 13_500 + 2_500 * worker)
    found: list[int] = []
    while len(found) < count:
        port = _chance.choice(among)
        if port not in found and _is_free(port) and _is_free(port + 10_000):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True

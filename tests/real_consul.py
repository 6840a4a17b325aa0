"""A real Consul as a process, for tests and benchmarks."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

__all__ = ["BINARY", "RealConsul", "free_ports"]

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
    """Ports nobody listens on now."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports

"""A sidecar process shared by all tests, on a dev agent, and upstreams that tests register as they need them."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from meshsdk_registry import Consul, Registration
from meshsdk_registry.agent import running_agent
from meshsdk_registry.transport import carry_by
from tests.real_consul import free_ports
from tests.sidecar.listener import listening

_numbers = itertools.count(1)
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Sidecar:
    """A running `meshsdk sidecar`."""

    process: subprocess.Popen[bytes]
    out: int
    admin: int
    inbound: int
    log: Path
    consul: str

    @property
    def proxy(self) -> str:
        return f"http://127.0.0.1:{self.out}"

    def page(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.read().decode()

    def until_ready(self) -> None:
        """Workers are processes that begin one after the other, which a busy machine takes its time for."""
        wait(lambda: self.process.poll() is None and self._ready(), self.log, seconds=30.0)

    def _ready(self) -> bool:
        try:
            return self.page("/ready")[0] == 200
        except OSError:
            return False


def wait(condition, log: Path | None = None, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, log.read_text() if log else "the condition never held"
        time.sleep(0.02)


def environment(tmp: Path, consul: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESH_", "CONSUL_"))}
    return kept | {
        "MESH_STATE_DIR": str(tmp / "state"),
        "MESH_RUNTIME_DIR": str(tmp / "run"),
        "CONSUL_HTTP_ADDR": consul,
        "MESH_FIRST_WAIT": "0.5",
        "MESH_DRAIN_WAIT": "0.1",
    }


def start(
    tmp: Path,
    consul: str,
    service: str,
    *,
    outbound: int = 0,
    admin: int = 0,
    inbound: int = 0,
    more: str = "",
    command: Sequence[str] = (),
) -> Sidecar:
    """Start one, as `meshsdk sidecar` becomes it; `service` is the inside of the file's
    `service: {…}`, port 0 a free one.

    Args:
        more: further lines of the file.
        command: the app, to be run as a child.
    """
    free = free_ports(3)
    out, admin, inbound = outbound or free[0], admin or free[1], inbound or free[2]
    lines = [f"service: {{{service}}}", f"outbound: {{port: {out}}}", f"admin: {{port: {admin}}}"]
    lines += [f"inbound: {{address: 127.0.0.1, port: {inbound}}}", more or "drain: {app: 200ms}"]
    (tmp / "sidecar.yaml").write_text("\n".join(lines))
    log = tmp / "sidecar.log"
    words = ["-c", str(tmp / "sidecar.yaml"), *(["--exec", "--", *command] if command else [])]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "meshsdk_sidecar", *words],
            env=environment(tmp, consul),
            cwd=ROOT,
            stdout=file,
            stderr=file,
        )
    return Sidecar(process, out, admin, inbound, log, consul)


def end(sidecar: Sidecar) -> int:
    if sidecar.process.poll() is None:
        sidecar.process.send_signal(signal.SIGTERM)
    return sidecar.process.wait(15)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose unix sockets have short names: 108 bytes hold one, less than pytest's own folders may take."""
    with tempfile.TemporaryDirectory(prefix="mesh-", dir="/tmp", ignore_cleanup_errors=True) as found:
        yield Path(found)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """The test's own, in place of pytest's: processes have their runtime folders in it."""
    with short_folder() as found:
        yield found


@pytest.fixture(scope="session")
def shared_agent() -> Iterator[str]:
    with running_agent() as agent:
        yield agent.url


@pytest.fixture(scope="session")
def sidecar(shared_agent) -> Iterator[Sidecar]:
    with short_folder() as folder:
        found = start(folder, shared_agent, "name: legacy")
        try:
            found.until_ready()
            yield found
        finally:
            end(found)


@dataclass
class Upstream:
    """An instance of a service that a test answers for."""

    name: str
    port: int


@pytest.fixture
def upstream(shared_agent):
    """`async with upstream(app) as service`: an ASGI application, registered under a name of its own."""

    @asynccontextmanager
    async def serving(app) -> AsyncIterator[Upstream]:
        name, port = f"up-{next(_numbers)}", free_ports(1)[0]
        async with Consul(shared_agent) as consul, listening(app, "127.0.0.1", port):
            registration = Registration(name, f"{name}-1", "127.0.0.1", port)
            await consul.register(registration)
            await consul.pass_ttl(registration.check_id)
            yield Upstream(name, port)
            await consul.deregister(registration.id)

    return serving


async def told(writer: asyncio.StreamWriter, text: bytes) -> None:
    writer.write(text)
    await writer.drain()


@pytest.fixture(autouse=True)
def carried_as_before() -> Iterator[None]:
    """A sidecar's mesh in this process decides what carries requests to Consul: not in other tests."""
    yield
    carry_by(None)

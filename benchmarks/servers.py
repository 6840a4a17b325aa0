"""What the clients' benchmarks call: a responder in a process of its own, and a pair of Envoys with mTLS before it.

The responder listens in clear text and, at ports of their own, for mutual TLS, by an identity as a `Mesh` has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import uvloop

from benchmarks import envoys
from meshsdk.discovery.background import Background
from meshsdk.identity import Identity, Material
from meshsdk.identity.providers.provider import Publish
from tests.identity.certificates import issue, material
from tests.real_consul import free_ports
from tests.wire.real_servers import Started, binary, envoy

__all__ = ["SIZES", "TOGETHER", "Stage", "identity", "loaded", "on_core", "stage"]

SIZES = {"/small": 17, "/large": 64 * 1024, "/stream": 10 * 1024 * 1024}
TOGETHER = 200  # requests of the same /wait… are answered when so many are there, so that all need a connection

CLIENT_CORE, SERVER_CORE = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Keep this process, and those it starts, on one core. (Later moves would miss the threads they have by then.)"""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# --- identities ---------------------------------------------------------------------------------------


class _Given:
    """The provider of material that never changes."""

    def __init__(self, material: Material) -> None:
        self.material = material

    async def run(self, publish: Publish) -> None:
        publish(self.material)
        await asyncio.Event().wait()


def identity(material: Material) -> Identity:
    """An identity as a `Mesh` has it, in force."""
    made = Identity(_Given(material), Background())
    if not made.wait_ready(10):
        raise RuntimeError(f"no identity: {made.state.reason}")
    return made


# --- the responder ------------------------------------------------------------------------------------


def _answer(size: int) -> bytes:
    body = b'{"charged":true}\n' if size == 17 else bytes(range(256)) * (size // 256)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % size
    return head + body


class Responder(asyncio.Protocol):
    """Answers every request head at once, /wait… apart; knows no more of HTTP, as it must outrun the clients."""

    def __init__(self, answers: dict[bytes, bytes], waiting: dict[bytes, list[asyncio.Transport]]) -> None:
        self.answers = answers
        self.waiting = waiting
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        data = self.tail + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            target = data[4 : data.index(b" ", 4)]  # after `GET `
            if target in self.answers:
                self.transport.write(self.answers[target])
            else:
                self.wait(target)
            data = data[end + 4 :]
        self.tail = data

    def wait(self, target: bytes) -> None:
        waiting = self.waiting.setdefault(target, [])
        waiting.append(self.transport)
        if len(waiting) == TOGETHER:
            for transport in self.waiting.pop(target):
                transport.write(self.answers[b"/small"])


def serve(pipe: Connection, own: Material) -> None:
    """Listen on three ports in clear text and on three for mutual TLS, tell them, and answer until told to stop."""
    waiting: dict[bytes, list[asyncio.Transport]] = {}
    answers = {target.encode(): _answer(size) for target, size in SIZES.items()}
    context = identity(own).server_context()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_server(lambda: Responder(answers, waiting), "127.0.0.1", 0, backlog=1024, ssl=secured)
            for secured in (None, None, None, context, context, context)
        ]
        pipe.send([server.sockets[0].getsockname()[1] for server in made])
        with contextlib.suppress(EOFError):
            await asyncio.to_thread(pipe.recv)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@contextmanager
def _responding(own: Material) -> Iterator[list[int]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs, own), daemon=True)
    server.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        server.join(5)


# --- all of it ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """Ports of the loopback, three of the one responder in clear text and three for mutual TLS, and who calls.

    Attributes:
        envoy: the port of the caller's Envoy.
        caller: what the responder believes.
    """

    ports: list[int]
    secured: list[int]
    envoy: int
    caller: Material


@contextmanager
def stage() -> Iterator[Stage]:
    """Start everything on the servers' core, and stay on the clients' meanwhile."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        outbound, inbound = free_ports(2)
        envoys.certificates(folder)
        root = issue("root")
        with on_core(SERVER_CORE):
            ports = stack.enter_context(_responding(material("payments", root)))
            pair = {
                "inbound": (inbound, envoys.inbound(folder, inbound, ports[0])),
                "outbound": (outbound, envoys.outbound(folder, outbound, inbound)),
            }
            for name, (port, config) in pair.items():
                command = envoy(folder / f"{name}.json", config)
                stack.enter_context(Started(name, command, port, folder)).ready()
        stack.enter_context(on_core(CLIENT_CORE))
        yield Stage(ports[:3], ports[3:], outbound, material("checkout", root))


def loaded(stage: Stage, seconds: int) -> list[str]:
    """What wrk gets out of the responder and the pair from the clients' core: no client is measured beyond that."""
    told = []
    for name, port in {"responder": stage.ports[0], "Envoy pair": stage.envoy}.items():
        command = [binary("wrk"), "-t1", "-c16", f"-d{seconds}s"]
        out = subprocess.run([*command, f"http://127.0.0.1:{port}/small"], capture_output=True, text=True, check=True)
        rate = next(line.split()[1] for line in out.stdout.splitlines() if line.startswith("Requests/sec"))
        if "Non-2xx" in out.stdout or "Socket errors" in out.stdout:
            raise RuntimeError(f"{name} under wrk: {out.stdout}")
        told.append(f"{name} {float(rate):,.0f}/s")
    return told

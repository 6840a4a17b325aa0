"""What restarts are tested with: requests that go on, and a process that is to replace the one that runs."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager, contextmanager

import httpx

from meshsdk_registry import Registration
from tests.real_consul import free_ports
from tests.sidecar.conftest import ROOT, environment, start
from tests.sidecar.listener import listening

__all__ = ["app", "called", "hello", "load", "running", "successor", "until_ended"]

RATE = 50  # requests per second in each direction


async def hello(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@contextmanager
def running(tmp_path, consul, service, **more):
    """The first sidecar; whatever else the test starts is its own to end."""
    sidecar = start(tmp_path, consul, service, **more)
    try:
        yield sidecar
    finally:
        sidecar.process.kill()
        sidecar.process.wait()


@contextmanager
def successor(tmp_path, consul, name="next.log", *words, **variables):
    """Another process of the same file that is to replace the one that runs."""
    log = tmp_path / name
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "meshsdk_sidecar", "-c", str(tmp_path / "sidecar.yaml"), *words, "--replace"],
            env=environment(tmp_path, consul) | variables,
            cwd=ROOT,
            stdout=file,
            stderr=file,
        )
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def load(url: str, *, verify: ssl.SSLContext | bool = True, sni: str = "", **headers: str):
    """Requests at `RATE`, half of them on kept connections and half on new ones; what they came to."""
    extensions = {"sni_hostname": sni} if sni else {}
    came: Counter[str] = Counter()
    over = asyncio.Event()

    async def ask(http: httpx.AsyncClient, **more: str) -> None:
        try:
            answer = await http.get(url, headers={**headers, **more}, extensions=extensions)
            came[str(answer.status_code)] += 1
        except httpx.HTTPError as error:
            came[repr(error)] += 1

    async def go_on(http: httpx.AsyncClient) -> None:
        loop = asyncio.get_running_loop()
        began, asked = loop.time(), set()
        for number in itertools.count():
            if over.is_set():
                break
            asked.add(asyncio.create_task(ask(http, **({"connection": "close"} if number % 2 else {}))))
            await asyncio.sleep(began + number / RATE - loop.time())
        await asyncio.gather(*asked)

    async with httpx.AsyncClient(trust_env=False, timeout=5, verify=verify) as http:
        task = asyncio.create_task(go_on(http))
        try:
            yield came
        finally:
            over.set()
            await task


@asynccontextmanager
async def app():
    """The service beside the sidecar."""
    port = free_ports(1)[0]
    async with listening(hello, "127.0.0.1", port):
        yield port


@asynccontextmanager
async def called(consul):
    """A service that the sidecar's app calls."""
    async with app() as port:
        registration = Registration("called", "called-1", "127.0.0.1", port)
        await consul.register(registration)
        await consul.pass_ttl(registration.check_id)
        yield


async def until_ended(process, consul, seen) -> None:
    """The end of a process that is replaced, and what callers were told in the meantime."""
    async with asyncio.timeout(40):
        while process.poll() is None:
            found = (await consul.instances("legacy")).value
            seen |= {each.health for each in found} or {None}
            await asyncio.sleep(0.05)
    assert process.returncode == 0

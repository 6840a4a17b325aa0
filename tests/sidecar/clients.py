"""One sidecar that calls its own app: what goes out by it comes in again over mutual TLS, before the app is asked."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.real_consul import free_ports
from tests.sidecar.conftest import end, start
from tests.sidecar.listener import listening

__all__ = ["Way", "in_thread", "serving", "way_to"]

POLICY = "version: 1\ntls: {mode: strict}\ntimeouts: {request: 20s, attempt: 20s}\n"


@dataclass(frozen=True)
class Way:
    """Where `api` is found: `upstream` is the port of that service alone, `out` the one for all."""

    out: int
    upstream: int
    log: Path


@contextmanager
def way_to(app: int, agent: str, folder: Path) -> Iterator[Way]:
    """A sidecar before an app that is there already; callers without an identity are refused.

    Args:
        app: the port it listens at.
    """
    httpx.put(f"{agent}/v1/kv/mesh/policy/api", content=POLICY, trust_env=False).raise_for_status()
    upstream = free_ports(1)[0]
    lines = [
        f"upstreams: [{{service: api, port: {upstream}}}]",
        "drain: {wait: 0s, app: 0s}",
        "identity: {source: consul}",
    ]
    sidecar = start(folder, agent, f"name: api, port: {app}", more="\n".join(lines))
    try:
        sidecar.until_ready()
        clear = httpx.get(f"http://127.0.0.1:{sidecar.inbound}/", trust_env=False)
        assert clear.status_code == 400, "only mutual TLS is let in"
        yield Way(sidecar.out, upstream, sidecar.log)
    finally:
        code = end(sidecar)
    assert code == 0
    assert "Traceback" not in sidecar.log.read_text()


@contextmanager
def in_thread(server: Callable[[int], AbstractAsyncContextManager[object]]) -> Iterator[int]:
    """Run a server on a loop of its own, so that tests may wait for clients; yields its port."""
    port, up, stop = free_ports(1)[0], threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with server(port):
            up.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert up.wait(10)
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@asynccontextmanager
async def serving(port: int) -> AsyncIterator[None]:
    """`echo` at a port."""
    async with listening(echo, "127.0.0.1", port):
        yield


async def echo(scope, receive, send) -> None:
    """Tell what was asked, as JSON; `/big` answers with 4 MiB of known bytes instead."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    told = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "host": dict(scope["headers"])[b"host"].decode(),
        "names": [name.decode() for name, _ in scope["headers"]],
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    answer = BIG if scope["path"] == "/big" else json.dumps(told).encode()
    fields = [(b"content-type", b"application/json")]
    if scope["path"] != "/chunked":
        fields.append((b"content-length", str(len(answer)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": answer})


BIG = bytes(range(256)) * (4 * 1024 * 4)

"""The policy's `egress`, from Consul to a client's calls out of the mesh."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from meshsdk import EgressDenied, Mesh
from meshsdk_registry import Consul
from meshsdk_registry.agent.server import AgentThread


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def outside():
    with HTTPServer(("127.0.0.1", 0), _Hello) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


async def test_the_first_call_obeys_what_consul_says_and_so_does_the_next(
    dev_agent: AgentThread, make_mesh: Callable[..., Mesh], outside: str, tmp_path: Path
) -> None:
    """Nobody has asked for the policy before the first call: it waits."""
    async with Consul(dev_agent.url) as consul:
        opened = b"version: 1\negress: {default: deny}\nfrom: {free: {egress: {default: allow}}}"
        await consul.put("mesh/policy/_mesh", opened)
        bound = make_mesh(dev_agent.url)
        with bound.client() as http, pytest.raises(EgressDenied, match=r"policy _mesh@\d+"):
            await asyncio.to_thread(http.get, outside)
        with Mesh("free", consul_url=dev_agent.url, state_dir=tmp_path / "free") as free, free.client() as http:
            assert (await asyncio.to_thread(http.get, outside)).status_code == 200
        async with bound.async_client() as http:
            with pytest.raises(EgressDenied):
                await http.get(outside)
            await consul.put("mesh/policy/_mesh", b"version: 1\negress: {default: deny, allow: [127.0.0.1]}")
            async with asyncio.timeout(20):
                while not await _passes(http, outside):  # noqa: ASYNC110 - Consul changes it
                    await asyncio.sleep(0.01)


async def _passes(http, outside: str) -> bool:
    try:
        return (await http.get(outside)).status_code == 200
    except EgressDenied:
        return False


async def test_without_consul_nothing_is_refused_and_that_is_said_once(
    make_mesh: Callable[..., Mesh], outside: str, caplog: pytest.LogCaptureFixture
) -> None:
    mesh = make_mesh("http://127.0.0.1:1", first_wait=1.0)
    async with mesh.async_client() as http:
        for _ in range(2):
            assert (await http.get(outside)).status_code == 200
    assert caplog.text.count("calls to hosts outside the mesh are not restricted") == 1

"""A whole mesh in a trio program: discovery, identity and the end, on a dev agent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from meshsdk import Mesh
from tests.wire.scripted import Server, answering, eventually, reply


def register(agent: Any, server: Server) -> None:
    body = {"ID": "payments-1", "Name": "payments", "Address": server.host, "Port": server.port}
    httpx.put(f"{agent.url}/v1/agent/service/register", json=body).raise_for_status()


@pytest.mark.parametrize("identity", ["auto", "off"])
def test_a_service_of_the_registry(dev_agent: Any, serve: Callable[..., Server], tmp_path: Path, identity: str) -> None:
    server = serve(answering(reply(b"charged")))
    register(dev_agent, server)

    async def main() -> None:
        with Mesh("caller", consul_url=dev_agent.url, identity=identity, state_dir=tmp_path) as mesh:
            async with mesh.async_client(engine="httpcore") as client:
                found: list[str] = []

                async def call() -> None:
                    found.append((await client.get("http://payments/charge")).text)

                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(call)
            assert found == ["charged"] * 5
            assert mesh.identity is None or mesh.identity.material is not None, "the first call waited for it"
            await mesh.directory.aclose()

    trio.run(main)
    eventually(lambda: server.open_connections == 0)

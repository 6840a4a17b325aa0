"""The policy's `egress`, from Consul to what an app may call through its sidecar."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from meshsdk_registry import Consul
from tests.real_consul import free_ports
from tests.sidecar.conftest import end, start
from tests.sidecar.listener import listening


async def _hello(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_first_request_obeys_what_consul_says_and_so_does_the_next(tmp_path, dev_agent, workers):
    """The first one may come before the sidecar knows the policy: nothing passes until it does."""
    port = free_ports(1)[0]
    async with Consul(dev_agent.url) as consul, listening(_hello, "127.0.0.1", port):
        outside = f"127.0.0.1:{port}"
        policy = "version: 1\negress: {default: deny}\nfrom: {legacy: {egress: {allow: [%s]}}}"
        await consul.put("mesh/policy/_mesh", (policy % "api.example.com").encode())
        sidecar = start(tmp_path, dev_agent.url, "name: legacy", more=f"workers: {workers}\ndrain: {{app: 0s}}")
        try:
            transport = httpx.AsyncHTTPTransport(retries=5)
            async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=20) as http:

                async def asked() -> httpx.Response:
                    return await http.get(f"{sidecar.proxy}/", headers={"host": outside})

                first = await asked()
                assert (first.status_code, first.headers["x-mesh-flag"]) == (403, "NR")
                assert "no 127.0.0.1 at port" in first.text
                sidecar.until_ready()
                assert (
                    'mesh_sidecar_refused_total{mesh_listener="outbound",mesh_reason="egress"}'
                    in sidecar.page("/metrics")[1]
                )
                await consul.put("mesh/policy/_mesh", (policy % f'"{outside}"').encode())
                statuses = {403}
                async with asyncio.timeout(20):
                    while 200 not in statuses:
                        statuses.add((await asked()).status_code)
                assert statuses == {403, 200}
            assert end(sidecar) == 0
        finally:
            sidecar.process.kill()
            sidecar.process.wait()

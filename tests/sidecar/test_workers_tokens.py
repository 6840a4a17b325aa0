"""Workers and the keys of tokens: one process asks the issuer, all judge by the answer from the first request on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter

import pytest

from meshsdk_registry import Consul
from tests.sidecar.restarts import app, running
from tests.sidecar.test_workers import TWO, ask, until, workers_of
from tests.tokens.issuing import AUDIENCE, NAME, jwk, jwks, token
from tests.tokens.test_source import Issuer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are found in /proc")


async def test_one_process_asks_the_issuer_for_all(tmp_path, dev_agent):
    issuer = Issuer()
    server = await asyncio.start_server(issuer.answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
    one = {"issuer": NAME, "jwks": url, "audiences": [AUDIENCE]}
    policy = {"version": 1, "authentication": {"jwt": {"issuers": [one], "required": True}}}
    async with Consul(dev_agent.url) as consul, app() as port, server:
        await consul.put("mesh/policy/legacy", json.dumps(policy).encode())
        with running(tmp_path, dev_agent.url, f"name: legacy, port: {port}", more=TWO) as sidecar:
            await asyncio.to_thread(sidecar.until_ready)
            inbound = f"http://127.0.0.1:{sidecar.inbound}/"

            async def answers(text: str, times: int) -> Counter[int]:
                return Counter(await ask(inbound, times, authorization=f"Bearer {text}"))

            # No worker turns its first ones away, nor does one that takes another's place.
            assert await answers(token(), 16) == {200: 16}, sidecar.log.read_text()
            (victim, other) = pids = workers_of(sidecar)
            os.kill(victim, signal.SIGKILL)
            await until(lambda: replaced(sidecar, pids))
            assert await answers(token(), 16) == {200: 16}, sidecar.log.read_text()
            assert other in workers_of(sidecar)
            assert issuer.asked == 1

            # A key that nobody knows makes one of them ask, and all hear the answer.
            new = token("P-256", alg="ES256")
            issuer.body = jwks(jwk("P-256"))

            async def known() -> bool:
                return await answers(new, 8) == {200: 8}

            await until(known, 20)
            assert await answers(token(), 8) == {401: 8}
            assert issuer.asked <= 3, "five seconds are between two looks, whoever wants one"
        assert "Traceback" not in sidecar.log.read_text()


async def replaced(sidecar, before) -> bool:
    return len(set(workers_of(sidecar)) - {before[0]}) == 2

"""What a client that left leaves behind is gone at once: with a reply in it, it must not wait for the collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator

import pytest

from meshsdk.wire.aio.connection import Connection
from meshsdk_sidecar.proxy.downstream import Downstream
from meshsdk_sidecar.proxy.forwarding import Forwarding
from tests.sidecar.proxy.ends import Peer

GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"x" * 30_000

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # asyncio's transports are in circles of their own


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def kept() -> list[str]:
    kinds = (Forwarding, Downstream, Connection)
    return [type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds)]


@pytest.mark.parametrize("answer", [b"", BEGUN], ids=["before the reply", "in its body"])
async def test_clients_that_leave(rig, way, answer: bytes) -> None:
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        asked.set()
        await peer.rest()

    rig.app.script = script
    with uncollected():
        before = kept()
        for _ in range(3):
            asked.clear()
            client = await rig.client(way)
            await client.send(GET)
            await asked.wait()
            await asyncio.sleep(0.02)  # what was sent has come as far as it comes
            client.reset()
            await rig.settled()
            del client
        for _ in range(50):
            if kept() == before:
                break
            await asyncio.sleep(0.02)
        assert kept() == before

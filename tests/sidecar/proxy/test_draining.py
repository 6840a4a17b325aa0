"""The way in at the end, where there is no identity: nobody else comes, and what was asked is answered."""

from __future__ import annotations

import asyncio

import pytest

from tests.sidecar.proxy.ends import Client, Peer, answering_after, until

GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"


async def test_requests_under_way_are_answered_and_nobody_else_is_let_in(make) -> None:
    finish = asyncio.Event()
    rig = await make(answering_after(finish))
    busy, quiet, outward = await rig.client("in"), await rig.client("in"), await rig.client("out")
    await busy.send(GET)
    await outward.send(GET)
    await until(lambda: len(rig.app.requests) == 2 and rig.plane.connected == 3)
    drained = asyncio.create_task(rig.plane.drain_inbound(5.0))
    assert await quiet.closed()
    with pytest.raises(ConnectionRefusedError):
        await Client.open(rig.ports["in"])
    assert not drained.done()
    finish.set()
    reply = await busy.reply()
    assert (reply.status, reply.get(b"connection")) == (200, b"close")
    assert await busy.closed()
    assert (await outward.reply()).status == 200
    await drained
    assert (await outward.ask(GET)).status == 200, "the way out stays open"


async def test_what_takes_longer_than_it_may_is_broken_off(make) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(60)

    rig = await make(silent)
    client = await rig.client("in")
    await client.send(GET)
    await until(lambda: len(rig.app.requests) == 1)
    await rig.plane.drain_inbound(0.05)
    assert await client.closed()

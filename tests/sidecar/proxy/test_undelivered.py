"""A request that the app behind a sidecar never got may be sent to another instance, whatever its method."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

from meshsdk.client.transport import AsyncMeshTransport
from tests.sidecar.proxy.ends import App, Client, Peer, answering, ok, until
from tests.sidecar.proxy.rig import Rig, plan
from tests.sidecar.proxy.test_retries import tries

POST = b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi"
NAME = b"x-mesh-undelivered"


async def test_said_by_the_way_in_only(rig: Rig, way: str) -> None:
    await rig.app.close()
    client = await rig.client(way)
    reply = await client.ask(POST)
    assert (reply.status, reply.get(b"x-mesh-flag")) == (503, b"UF")
    assert reply.get(NAME) == (b"1" if way == "in" else None)


async def test_not_said_of_what_was_delivered(rig: Rig) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    rig.app.script = script
    client = await rig.client("in")
    reply = await client.ask(POST)
    assert (reply.status, reply.get(NAME)) == (503, None)


async def test_an_app_cannot_say_it(rig: Rig, way: str) -> None:
    """Over loopback it would be believed, where nobody is between."""
    rig.app.script = answering(ok(b"no", 503, b"X-Mesh-Undelivered: 1\r\n"))
    client = await rig.client(way)
    reply = await client.ask(POST)
    assert (reply.status, reply.get(NAME)) == (503, None)
    assert len(rig.app.requests) == (3 if way == "out" else 1)


async def test_a_caller_cannot_say_it(rig: Rig, way: str) -> None:
    client = await rig.client(way)
    await client.ask(b"GET / HTTP/1.1\r\nHost: app\r\nX-Mesh-Undelivered: 1\r\n\r\n")
    assert rig.app.requests[0].get(NAME) is None


async def test_what_was_taken_of_a_long_body_cannot_be_sent_again(make) -> None:
    rig = await make()
    await rig.app.close()
    client = await rig.client("pair")
    client.write(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 1000000\r\n\r\n", b"x" * 200_000)
    assert (await client.reply()).status == 503
    assert tries(rig) == [("connect-failure", "final:not-retried-connect-failure")]


class Restarting:
    """A script of an app that can go in order: whoever is connected has one more answer, nobody else gets in."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._going = False
        self.answered = 0

    async def __call__(self, peer: Peer) -> None:
        while not self._going:
            await peer.request()
            self.answered += 1
            await peer.send(ok(b"ok", 200, b"Connection: close\r\n" if self._going else b""))

    async def go(self) -> None:
        self._going = True
        self._app._server.close()
        await until(lambda: not self._app.peers)

    async def come(self) -> None:
        self._going = False
        self._app._server = await asyncio.start_server(self._app._serve, "127.0.0.1", self._app.port)


async def _calling(client: Client, answers: list[int], on: asyncio.Event) -> None:
    while on.is_set():
        answers.append((await client.ask(POST.replace(b"app", b"web"))).status)


async def test_posts_outlast_restarts_of_an_app_whose_sidecar_stays() -> None:
    """Two instances, mutual TLS, sixteen callers; one app comes and goes."""
    retried = plan(retries={"budget_ratio": 1.0})  # half of the calls may meet the app that is gone
    async with contextlib.AsyncExitStack() as stack:
        rig, other = Rig(secured=True, policy=retried), Rig(secured=True)
        for one in (rig, other):
            await one.open()
            stack.push_async_callback(one.close)
        rig.directory.place("web", [f"127.0.0.1:{one.ports['in']}" for one in (rig, other)])
        rig.app.script, other.app.script = restarting, steady = Restarting(rig.app), Restarting(other.app)
        on, answers = asyncio.Event(), list[int]()
        on.set()
        calling = [asyncio.create_task(_calling(await rig.client("out"), answers, on)) for _ in range(16)]
        for _ in range(3):
            before = restarting.answered, len(answers)
            await until(lambda: restarting.answered > before[0] + 20)  # noqa: B023 - awaited here
            await restarting.go()
            before = restarting.answered, len(answers)
            await until(lambda: len(answers) > before[1] + 50)  # noqa: B023
            assert restarting.answered == before[0]
            await restarting.come()
        on.clear()
        await asyncio.gather(*calling)
        # What lies in a listener's backlog when it closes was written, and nobody knows here that it was never read.
        assert {call.reason for call in rig.ended if call.status != 200} <= {"not-idempotent"}
        assert answers.count(200) > 0.95 * len(answers)
        assert ("connect-failure", "retry:connect-failure") in tries(rig)
        assert answers.count(200) == restarting.answered + steady.answered  # none was asked twice
        await until(rig.idle)


async def test_callers_of_the_sdk_hear_it_too(rig: Rig) -> None:
    """Over the wire to a way in whose app is gone, and to one whose app is there."""
    async with contextlib.AsyncExitStack() as stack:
        other = await Rig().open()
        stack.push_async_callback(other.close)
        await rig.app.close()
        rig.directory.place("web", [f"127.0.0.1:{one.ports['in']}" for one in (rig, other)])
        http = await stack.enter_async_context(httpx.AsyncClient(transport=AsyncMeshTransport(rig.directory)))
        for _ in range(4):
            assert (await http.post("http://web/", content=b"hi")).status_code == 200
        rig.directory.place("web", [f"127.0.0.1:{rig.ports['in']}"])
        with pytest.raises(httpx.ConnectError, match="could not be reached"):
            await http.post("http://web/", content=b"hi")
    assert set(tries(rig)) <= {
        ("connect-failure", "retry:connect-failure"),
        ("connect-failure", "final:attempts-used"),
    }

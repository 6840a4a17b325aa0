"""Many clients, few descriptors, and who may come in: what a listener bounds and what it refuses, with words."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from meshsdk.server.guard import Guard
from meshsdk.server.verified import Verified
from tests.sidecar.proxy.ends import Client, answering_after, until
from tests.sidecar.proxy.rig import plan

GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
ROOT = Path(__file__).resolve().parents[3]
ON_UVLOOP = pytest.mark.asyncio(loop_factories=["uvloop"])


# --- who comes in -----------------------------------------------------------------------------------------


async def test_what_is_told_of_a_request_that_comes_in(rig) -> None:
    client = await rig.client("in")
    assert (await client.ask(b"GET /a?secret=1 HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
    (ended,) = rig.requests_ended
    assert (ended.method, ended.path, ended.status, ended.flag, ended.peer) == ("GET", "/a", 200, "", "")
    assert ended.client == "127.0.0.1"


async def test_refusals_at_the_door_say_why(make) -> None:
    closed = plan(access={"default": "deny"})
    rig = await make(guard=Guard(lambda: closed))
    client = await rig.client("in")
    body = b"x" * 300_000
    for asked in (GET, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"):
        reply = await client.ask(asked, method=asked[:4].strip())
        assert reply.status == 403
        assert reply.get(b"connection") is None
        assert asked is not GET or b"denied" in reply.body
    reply = await client.ask(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body), body)
    assert (reply.status, reply.get(b"connection")) == (403, b"close")  # its body is not waited for
    assert await client.closed()
    assert not rig.app.connections
    assert [(end.status, end.flag) for end in rig.requests_ended] == [(403, "UAEX")] * 3


async def test_strict_mode_takes_nobody_without_a_verified_identity(make) -> None:
    rig = await make(guard=Guard(lambda: replace(plan(), tls="strict")))
    client = await rig.client("in")
    reply = await client.ask(GET)
    assert reply.status == 403
    assert b"identity" in reply.body or b"certificate" in reply.body


async def test_certificates_are_told_of_by_the_mesh_alone(rig) -> None:
    forged = b"X-Forwarded-Client-Cert: URI=spiffe://x/admin\r\n"
    for way in ("in", "out"):
        client = await rig.client(way)
        assert (await client.ask(GET.replace(b"Host", forged + b"Host"))).status == 200
        assert rig.app.requests[-1].get(b"x-forwarded-client-cert") is None
    client = await rig.client("in")
    assert (await client.ask(GET.replace(b"Host", forged.replace(b"-", b"_") + b"Host"))).status == 400


async def test_no_client_says_below_which_prefix_the_app_is(rig) -> None:
    """gunicorn takes SCRIPT_NAME from 127.0.0.1, where the sidecar is."""
    client = await rig.client("in")
    assert (await client.ask(GET.replace(b"Host", b"Script_Name: /public\r\nHost"))).status == 200
    assert rig.app.requests[0].names == [b"Host"]


@pytest.mark.interpreted
async def test_verified_caller_is_told_of_and_its_certificate_runs_out(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    who = Verified("spiffe://d/ns/default/dc/dc1/svc/shop", 4e9, {})  # type: ignore[arg-type]
    monkeypatch.setattr("meshsdk_sidecar.proxy.inbound.verified", lambda _: who)
    rig.intake._own_id = lambda: "spiffe://d/ns/default/dc/dc1/svc/web"
    client = await rig.client("in")
    assert (await client.ask(GET)).status == 200
    told = b"By=spiffe://d/ns/default/dc/dc1/svc/web;URI=spiffe://d/ns/default/dc/dc1/svc/shop"
    assert rig.app.requests[0].get(b"x-forwarded-client-cert") == told
    who.expires = 1.0
    await client.send(GET, GET)
    assert await client.closed()
    assert len(rig.app.requests) == 1
    assert rig.plane.refusals["inbound", "certificate-expired"] == 1
    await client.close()
    await rig.settled()


async def test_bodies_that_nobody_takes_do_not_add_up(make, way) -> None:
    rig = await make()
    client = await rig.client(way)
    await rig.app.close()
    for _ in range(20):  # of 32 KiB: more than is read ahead of one connection
        reply = await client.ask(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 32768\r\n\r\n", b"x" * 32768)
        assert reply.status == 503
    assert {downstream.reader.buffered for downstream in rig.plane._open} == {0}


# --- how many come in -------------------------------------------------------------------------------------


async def test_no_more_connections_than_the_limit(make) -> None:
    rig = await make(limits={"connections": 3})
    kept = [await rig.client(way) for way in ("out", "in", "out")]
    await until(lambda: len(rig.plane._open) == 3)
    for _ in range(2):
        assert await (await rig.client()).closed()
    assert rig.plane.refusals["listener", "connections"] == 2
    for client in kept:
        assert (await client.ask(GET)).status == 200
    await kept.pop().close()
    await until(lambda: len(rig.plane._open) == 2)
    assert (await (await rig.client()).ask(GET)).status == 200


async def test_sizes_of_the_file_hold(make, way) -> None:
    rig = await make(limits={"head": 2048, "body": 1000})
    client = await rig.client(way)
    assert (await client.ask(GET.replace(b"Host", b"X: " + b"y" * 1500 + b"\r\nHost"))).status == 200
    assert (await client.ask(GET.replace(b"Host", b"X: " + b"y" * 2500 + b"\r\nHost"))).status == 431
    for asked in (
        b"Content-Length: 1001\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n0\r\n\r\n",
    ):
        client = await rig.client(way)
        reply = await client.ask(b"PUT / HTTP/1.1\r\nHost: app\r\n", asked)
        assert (reply.status, reply.get(b"connection")) == (413, b"close")
        assert b"1000" in reply.body
    client = await rig.client(way)
    assert (await client.ask(b"PUT / HTTP/1.1\r\nHost: app\r\nContent-Length: 1000\r\n\r\n", b"x" * 1000)).status == 200
    assert [len(request.body) for request in rig.app.requests] == [0, 1000]
    await rig.close()


async def test_limits_of_the_policy_hold_at_the_way_out(make) -> None:
    go_on = asyncio.Event()
    policy = plan(limits={"max_requests": 3, "max_connections_per_endpoint": 2}, retries={"attempts": 1})
    rig = await make(answering_after(go_on), policy=policy)
    clients = [await rig.client() for _ in range(4)]
    for client in clients[:3]:
        await client.send(GET)
    await until(lambda: rig.plane.in_flight == 3)
    reply = await clients[3].ask(GET)
    assert (reply.status, reply.get(b"x-mesh-flag")) == (503, b"UO")
    await until(lambda: rig.app.connections == 2)
    go_on.set()
    for client in clients[:3]:
        assert (await client.reply()).status == 200
    assert rig.app.connections == 2


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@ON_UVLOOP
async def test_five_thousand_idle_connections(rig) -> None:
    before = _resident()
    sockets: list[asyncio.Transport] = []
    loop = asyncio.get_running_loop()
    for _ in range(50):
        made = await asyncio.gather(
            *(loop.create_connection(asyncio.Protocol, "127.0.0.1", rig.ports["out"]) for _ in range(100))
        )
        sockets += [transport for transport, _ in made]
    await until(lambda: len(rig.plane._open) == 5000)
    print(f"5,000 idle connections: {(_resident() - before) / 5000 / 1024:.1f} KiB each, both ends")
    client = await rig.client()
    assert (await client.ask(GET)).status == 200
    for transport in sockets:
        transport.abort()
    await until(lambda: len(rig.plane._open) == 1)


_STARVED = """
import asyncio, json, resource, sys, logging
import uvloop
from tests.sidecar.proxy.ends import Client, serving
from tests.sidecar.proxy.rig import Rig

GET = b"GET / HTTP/1.1\\r\\nHost: app\\r\\n\\r\\n"
logging.getLogger("asyncio").setLevel(logging.CRITICAL)

async def main():
    rig = await Rig().open()
    print(json.dumps({"out": rig.ports["out"], "in": rig.ports["in"]}), flush=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    await asyncio.to_thread(sys.stdin.read)
    for _ in range(200):
        if rig.plane._open:
            await asyncio.sleep(0.01)
    print(json.dumps({"open": len(rig.plane._open), "idle": rig.idle()}), flush=True)

asyncio.Runner(loop_factory=getattr(sys.modules[sys.argv[1]], "new_event_loop")).run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@ON_UVLOOP
async def test_without_descriptors_it_sheds_and_recovers(loop: str) -> None:
    command = [sys.executable, "-c", _STARVED, loop]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:  # noqa: ASYNC220
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            port = json.loads(process.stdout.readline())["out"]
            crowd = [await Client.open(port) for _ in range(80)]
            await asyncio.sleep(0.2)
            for client in crowd[:3]:  # who is in is served, or told why not
                assert (await asyncio.wait_for(client.ask(GET), 5)).status in {200, 503}
            for client in crowd:
                client.reset()
            await asyncio.sleep(0.1)
            statuses = [await _served(port) for _ in range(3)]
            assert statuses == [200] * 3
            process.stdin.close()
            told = json.loads(process.stdout.readline())
            assert told == {"open": 0, "idle": True}
        finally:
            process.kill()


async def _served(port: int) -> int:
    """Once there is room again; asyncio waits a second before it accepts again."""
    client = await Client.open(port)
    try:
        return (await asyncio.wait_for(client.ask(GET), 5)).status
    finally:
        await client.close()

"""What a proxy on the way owes a request besides carrying it: its count of hops, its deadline, its trace."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from meshsdk.core.cluster import Cluster
from meshsdk.telemetry.access_log import AccessLog
from tests.sidecar.proxy.ends import until
from tests.sidecar.proxy.rig import Rig

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def asking(method: bytes, hops: bytes) -> bytes:
    return method + b" /x HTTP/1.1\r\nHost: app\r\nCookie: secret\r\nX: y\r\nMax-Forwards: " + hops + b"\r\n\r\n"


@pytest.mark.parametrize("method", [b"TRACE", b"OPTIONS"])
async def test_last_hop_answers(rig: Rig, way: str, method: bytes) -> None:
    client = await rig.client(way)
    reply = await client.ask(asking(method, b"0"))
    assert reply.status == 200
    assert reply.body == (b"TRACE /x HTTP/1.1\r\nHost: app\r\nX: y\r\nMax-Forwards: 0\r\n\r\n" * (method == b"TRACE"))
    assert reply.get(b"content-type") == (b"message/http" if method == b"TRACE" else None)
    assert not rig.app.requests
    assert (await client.ask(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")).status == 200
    await until(rig.idle)


async def test_each_hop_is_counted(rig: Rig, way: str) -> None:
    client = await rig.client(way)
    reply = await client.ask(asking(b"OPTIONS", b"1"))
    assert len(rig.app.requests) == (way != "pair")
    assert reply.status == 200
    reply = await client.ask(asking(b"OPTIONS", b"007"))
    assert rig.app.requests[-1].get(b"max-forwards") == (b"5" if way == "pair" else b"6")


@pytest.mark.parametrize("hops", [b"-1", b"many", b"9" * 400])
async def test_what_counts_nothing_is_passed_on(rig: Rig, hops: bytes) -> None:
    client = await rig.client()
    assert (await client.ask(asking(b"OPTIONS", hops))).status == 200
    assert rig.app.requests[0].get(b"max-forwards") == hops


async def test_other_methods_count_no_hops(rig: Rig, way: str) -> None:
    client = await rig.client(way)
    await client.ask(asking(b"GET", b"0"))
    assert rig.app.requests[0].get(b"max-forwards") == b"0"


async def test_connect_has_the_time_its_client_gives_it(rig: Rig) -> None:
    """To a listener whose queue is full, as a host that does not answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        crowd = [socket.socket() for _ in range(4)]
        for sock in crowd:
            sock.setblocking(False)
            sock.connect_ex(address)
        client = await rig.client()
        begun = rig.plane.clock()
        reply = await client.ask(
            b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\nX-Envoy-Expected-Rq-Timeout-Ms: 150\r\n\r\n" % address[1]
        )
        taken = rig.plane.clock() - begun
        for sock in crowd:
            sock.close()
    assert (reply.status, reply.get(b"x-mesh-flag")) == (504, b"UT")
    assert 0.14 < taken < 0.9  # of a second, that connecting may take by the policy


async def test_what_is_no_deadline_of_a_connect_does_not_bound_it(rig: Rig) -> None:
    client = await rig.client()
    await client.send(b"CONNECT %b HTTP/1.1\r\nHost: x\r\nX-Wait: 1n\r\n\r\n" % rig.app.address.encode())
    assert (await client.reply(b"HEAD")).status == 200


async def test_deadline_runs_while_the_service_is_looked_up(rig: Rig) -> None:
    asked = b"GET / HTTP/1.1\r\nHost: app\r\nX-Envoy-Expected-Rq-Timeout-Ms: %d\r\n\r\n"
    known, ended = asyncio.Event(), []

    async def acluster(service: str) -> Cluster:
        try:
            await known.wait()
        finally:
            ended.append(service)
        return rig.cluster

    rig.directory.peek, rig.directory.acluster = lambda _: None, acluster  # type: ignore[method-assign]
    client = await rig.client()
    reply = await client.ask(asked % 50)
    assert (reply.status, reply.get(b"x-mesh-flag")) == (504, b"UT")
    assert ended == ["app"]  # nobody waits any more
    begun = rig.plane.clock()
    await client.send(asked % 5000)
    await until(lambda: rig.plane.clock() > begun + 0.1)
    known.set()
    assert (await client.reply()).status == 200
    (request,) = rig.app.requests
    assert 0 < int(request.get(b"x-envoy-expected-rq-timeout-ms") or 0) <= 4900


async def test_tunnel_outlasts_the_deadline_of_its_connect(rig: Rig) -> None:
    client = await rig.client()
    await client.send(
        b"CONNECT %b HTTP/1.1\r\nHost: x\r\nX-Envoy-Expected-Rq-Timeout-Ms: 300\r\n\r\n" % rig.app.address.encode()
    )
    assert (await client.reply(b"HEAD")).status == 200
    end = rig.plane.clock() + 0.4
    await until(lambda: rig.plane.clock() > end)
    assert (await client.ask(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")).status == 200


async def test_calls_are_logged_with_their_trace(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    client = await rig.client()
    await client.ask(
        b"GET / HTTP/1.1\r\nHost: app\r\nTraceparent: 00-%b-b7ad6b7169203331-01\r\n\r\n" % TRACE_ID.encode()
    )
    await client.ask(b"GET / HTTP/1.1\r\nHost: app\r\nTraceparent: junk\r\n\r\n")
    assert [request.get(b"traceparent")[:4] for request in rig.app.requests] == [b"00-0", b"junk"]
    log = AccessLog("web")
    with caplog.at_level(logging.INFO, "meshsdk.access"):
        for end in rig.ended:
            end.access_log = "all"
            log(end)
    assert [record.mesh.get("trace_id") for record in caplog.records] == [TRACE_ID, None]


async def test_a_call_to_the_sidecar_by_the_name_of_its_machine_would_come_back(rig: Rig) -> None:
    client = await rig.client()
    for name in (socket.gethostname(), "LOCALHOST", "x.localhost", "localhost."):
        reply = await client.ask(b"GET / HTTP/1.1\r\nHost: %b:%d\r\n\r\n" % (name.encode(), rig.ports["out"]))
        assert reply.status == 421, name

"""The way out of the mesh is open as far as `egress` of the policy says."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from meshsdk.core.egress import Egress
from meshsdk.core.plan import Plan
from tests.sidecar.proxy.rig import PLAN, Rig


def only(*hosts: str) -> Plan:
    return replace(PLAN, version="_mesh@7", egress=Egress("deny", hosts))


def asked(rig: Rig, form: str) -> bytes:
    """A request for a host outside, which is the app by its address, in each of the ways to send one."""
    there = rig.app.address
    return {
        "host": f"GET /x HTTP/1.1\r\nHost: {there}\r\n\r\n",
        "absolute": f"GET http://{there}/x HTTP/1.1\r\nHost: app\r\n\r\n",
        "connect": f"CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n\r\n",
    }[form].encode()


FORMS = pytest.mark.parametrize("form", ["host", "absolute", "connect"])


@FORMS
async def test_a_host_that_is_not_let_through_is_refused_in_words(make, form, caplog) -> None:
    rig = await make(own=only("api.example.com", "127.0.0.1:1", "*.0.0.1"))
    client = await rig.client()
    with caplog.at_level(logging.INFO, "meshsdk.sidecar"):
        reply = await client.ask(asked(rig, form))
    words = f"the policy (_mesh@7) lets this service call no 127.0.0.1 at port {rig.app.port}"
    assert (reply.status, reply.get(b"x-mesh-flag")) == (403, b"NR")
    assert reply.body == f"{words}: see `egress` in mesh/policy/_mesh\n".encode()
    assert rig.app.connections == 0, "nothing was sent"
    assert rig.plane.refusals == {("outbound", "egress"): 1}
    assert [reading.value for reading in rig.plane.readings() if "egress" in str(reading.labels)] == [1]
    assert f"outbound: refused (egress): {words}" in caplog.text


@FORMS
async def test_a_host_that_is_listed_is_reached(make, form) -> None:
    rig = await make(own=only("127.0.0.1"))
    client = await rig.client()
    await client.send(asked(rig, form))
    if form == "connect":
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        await client.send(b"GET /x HTTP/1.1\r\nHost: app\r\n\r\n")
    assert (await client.reply()).body == b"GET /x "
    assert rig.plane.refusals == {}


async def test_services_are_not_what_it_is_about(make) -> None:
    rig = await make(own=only())
    for way, host in (("out", b"app"), ("up", b"anything.example.com")):
        client = await rig.client(way)
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host)).status == 200


async def test_each_request_obeys_the_policy_of_its_moment(make) -> None:
    rig = await make()
    client = await rig.client()
    statuses = []
    for own in (PLAN, only(), only(rig.app.address)):
        rig.own = own
        statuses.append((await client.ask(asked(rig, "host"))).status)
    assert statuses == [200, 403, 200], "on one connection, which a refusal does not end"

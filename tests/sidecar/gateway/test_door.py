"""Requests from outside: where they go, what they say of themselves, and what their answers wear."""

from __future__ import annotations

from tests.sidecar.gateway.conftest import get


async def test_a_request_goes_to_the_service_of_its_route(rig):
    client = await rig.client()
    assert (await client.ask(get("/basket?x=1"))).body == b"GET /basket?x=1 "
    assert (await client.ask(get("/api/charge?x=/api"))).body == b"GET /charge?x=/api "
    assert (await client.ask(get("/api"))).body == b"GET / "
    assert (await client.ask(get("/apis"))).body == b"GET /apis "
    assert [request.target for request in rig.apps["payments"].requests] == [b"/charge?x=/api", b"/"]
    assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"

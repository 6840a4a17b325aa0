"""What is not a mesh service goes out as plain httpx would send it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest

from meshsdk import errors
from meshsdk.client import MeshTransport, client
from meshsdk.core.egress import Egress
from meshsdk.core.plan import Plan
from meshsdk.telemetry.context import Inbound, current
from meshsdk.telemetry.propagate import extract
from tests.client.colours import QUICK, Blocking, Colour, Mesh
from tests.wire.scripted import Peer, Server, after_request, answering, refusing_port, reply

Serve = Callable[..., Server]


async def test_an_address_with_a_port(colour: Colour, serve: Serve) -> None:
    server = serve(answering(reply(b"outside")))
    mesh = Mesh()
    async with colour.client(mesh) as http:
        response = await http.request("POST", f"http://{server.address}/x", content=b"body", headers={"X-A": "b"})
    assert response.text == "outside"
    assert server.bodies == [b"body"]
    assert b"x-envoy" not in server.heads[0].lower()
    assert mesh.events == []


async def test_errors_are_httpx_own(colour: Colour, serve: Serve) -> None:
    with refusing_port() as port:
        async with colour.client(Mesh()) as http:
            with pytest.raises(colour.httpx.ConnectError) as caught:
                await http.get(f"http://127.0.0.1:{port}/")
    assert not isinstance(caught.value, errors.MeshError)


async def test_the_trace_and_the_deadline_go_along(colour: Colour, serve: Serve) -> None:
    server, silent = serve(answering()), serve(after_request(Peer.stall))
    trace = extract([(b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")])
    async with colour.client(Mesh()) as http:
        await http.get(f"http://{server.address}/")  # makes the TLS context, which takes its time
        token = current.set(Inbound(deadline=time.monotonic() + 0.2, trace=trace))
        try:
            await http.get(f"http://{server.address}/")
            began = time.monotonic()
            with pytest.raises(colour.httpx.ReadTimeout):
                await http.get(f"http://{silent.address}/")
            assert time.monotonic() - began < 0.5
            with pytest.raises(errors.DeadlineExceeded, match="nothing was sent"):
                await http.get(f"http://{server.address}/")
        finally:
            current.reset(token)
    assert b"a" * 32 in server.heads[1]
    assert len(server.heads) == 2


async def test_the_users_own_timeout_is_left_alone(colour: Colour, serve: Serve) -> None:
    async with colour.client(Mesh()) as http:
        with pytest.raises(colour.httpx.ReadTimeout):
            await http.get(f"http://{serve(after_request(Peer.stall)).address}/", timeout=0.1)


def test_without_any_timeout_httpx_default_holds() -> None:
    seen: list[dict[str, float | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return httpx.Response(200)

    with client(MeshTransport(Mesh().directory, egress=httpx.MockTransport(answer))) as http:
        http.get("http://example.com/")
        http.get("http://example.com/", timeout=httpx.Timeout(None, read=60))
    default = httpx.Timeout(5.0).as_dict()
    assert seen == [default, {"connect": None, "read": 60, "write": None, "pool": None}]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_proxy_variables_do_not_take_calls_away(
    colour: Colour, serve: Serve, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with refusing_port() as port:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
        server = serve(answering())
        mesh = Mesh(server)
        async with colour.client(mesh) as http:
            assert (await http.get("http://payments/")).status_code == 200
        wrapped = colour.transport(mesh)
        if isinstance(colour, Blocking):
            with colour.httpx.Client(transport=wrapped) as plain:
                assert plain.get("http://payments/").status_code == 200
        else:
            async with colour.httpx.AsyncClient(transport=wrapped) as plain:
                assert (await plain.get("http://payments/")).status_code == 200


def test_the_policy_rules_time_unless_told_otherwise() -> None:
    directory = Mesh().directory
    with client(MeshTransport(directory)) as http:
        assert http.timeout == httpx.Timeout(None)
    with client(MeshTransport(directory), timeout=3) as http:
        assert http.timeout == httpx.Timeout(3)


def only(*hosts: str) -> Plan:
    return replace(QUICK, version="_mesh@7", egress=Egress("deny", hosts))


async def test_a_host_that_the_policy_does_not_let_through_is_an_error_of_its_own(colour: Colour, serve: Serve) -> None:
    server = serve(answering(reply(b"outside")))
    host, _, port = server.address.rpartition(":")
    mesh = Mesh(plan=only("api.example.com", f"{host}:1"))
    async with colour.client(mesh) as http:
        with pytest.raises(
            errors.EgressDenied, match=rf"no {host} at port {port}: see `egress`.*policy _mesh@7"
        ) as caught:
            await http.get(f"http://{server.address}/x")
    assert isinstance(caught.value, colour.httpx.ConnectError)
    assert isinstance(caught.value, errors.Refused)
    assert str(caught.value.request.url).endswith("/x")
    assert (caught.value.service, caught.value.attempts, caught.value.flag) == (host, 0, "NR")
    assert server.heads == [], "nothing was sent"


async def test_a_host_that_is_listed_is_called(colour: Colour, serve: Serve) -> None:
    server = serve(answering(reply(b"outside")))
    async with colour.client(Mesh(plan=only(server.address))) as http:
        assert (await http.get(f"http://{server.address}/")).text == "outside"


async def test_services_are_not_what_egress_is_about(colour: Colour, serve: Serve) -> None:
    async with colour.client(Mesh(serve(answering(reply(b"inside"))), plan=only())) as http:
        assert (await http.get("http://payments/")).text == "inside"


async def test_where_a_redirect_leads_is_asked_about_too(colour: Colour, serve: Serve) -> None:
    there = serve(answering(reply(b"outside")))
    head = f"HTTP/1.1 302 Found\r\nLocation: http://{there.address}/\r\nContent-Length: 0\r\n\r\n".encode()
    here = serve(answering(head))
    async with colour.client(Mesh(plan=only(here.address)), follow_redirects=True) as http:
        with pytest.raises(errors.EgressDenied):
            await http.get(f"http://{here.address}/")
    assert there.heads == []


def test_https_is_asked_about_by_its_own_port() -> None:
    answered = httpx.MockTransport(lambda _: httpx.Response(200))
    with client(MeshTransport(Mesh(plan=only("a.example.com:443")).directory, egress=answered)) as http:
        assert http.get("https://a.example.com/").status_code == 200
        with pytest.raises(errors.EgressDenied, match="port 80"):
            http.get("http://a.example.com/")

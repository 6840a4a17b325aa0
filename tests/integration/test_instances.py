"""Instances as Consul may list them: which are called, and what is said of the others."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from starlette.responses import PlainTextResponse

from meshsdk import Mesh
from meshsdk.errors import ConfigError, NoEndpoint
from tests.integration.programs import ConsulView, Site, until

Serve = Callable[..., Site]


@pytest.mark.parametrize("service", ["it two words", "it/slash", "It-Capital"])
def test_service_that_cannot_have_its_name(consul: ConsulView, service: str) -> None:
    with pytest.raises(ConfigError, match="DNS label"):
        Mesh(service, consul_url=consul.url)


async def test_ipv6_instance_is_called(mesh: Mesh, consul: ConsulView, site: Serve, service: str) -> None:
    served = site(PlainTextResponse("six"), "::1")
    consul.add(service, served.port, Address="::1")
    async with mesh.async_client() as http:
        assert (await http.get(f"http://{service}/")).text == "six"
    with mesh.client() as blocking:
        assert blocking.get(f"http://{service}/").text == "six"
    assert len(served.hits) == 2


def test_what_cannot_be_called_costs_its_neighbours_nothing(
    mesh: Mesh, consul: ConsulView, site: Serve, service: str
) -> None:
    served = site(PlainTextResponse("fine"))
    consul.add(service, served.port)
    consul.add(service, 0, ID="without-port")
    consul.add(service, 7001, ID="wild", Address="10.0.0.1:7001")
    consul.add(service, 7002, ID="garbled", Address="10.1.2")
    consul.add(service, 7003, ID="weightless", Weights={"Passing": 0, "Warning": 0})
    with mesh.client() as http:
        assert [http.get(f"http://{service}/").text for _ in range(20)] == ["fine"] * 20
    (status,) = mesh.status()
    told = "\n".join(status.refusals)
    for words in ("without-port", "port 0", "wild", "10.0.0.1:7001", "garbled", "10.1.2"):
        assert words in told
    assert len(status.endpoints) >= 1


def test_instance_without_an_address_has_its_nodes(mesh: Mesh, consul: ConsulView, site: Serve, service: str) -> None:
    """Consul's rule: a service without an address of its own is reached at its node's."""
    served = site(PlainTextResponse("at the node"), "127.0.0.2")
    consul.add(service, served.port, Address="")
    with mesh.client() as http:
        assert http.get(f"http://{service}/").text == "at the node"


def test_same_id_on_two_nodes_is_two_instances(mesh: Mesh, consul: ConsulView, site: Serve, service: str) -> None:
    sites = [site(PlainTextResponse("one")), site(PlainTextResponse("two"))]
    for number, one in enumerate(sites):
        consul.add(service, one.port, ID="same", node=f"node-{number}")
    with mesh.client() as http:
        until(lambda: {http.get(f"http://{service}/").text for _ in range(20)} == {"one", "two"})
    (status,) = mesh.status()
    assert len(status.endpoints) == 2
    assert status.refusals == ()


def test_maintenance_takes_an_instance_out_and_back(mesh: Mesh, consul: ConsulView, site: Serve, service: str) -> None:
    sites = [site(PlainTextResponse("one")), site(PlainTextResponse("two"))]
    for number, one in enumerate(sites):
        body = {"ID": f"{service}-{number}", "Name": service, "Address": "127.0.0.1", "Port": one.port}
        consul.ask("PUT", "agent/service/register", json.dumps(body).encode())
    with mesh.client() as http:

        def answers() -> set[str]:
            return {http.get(f"http://{service}/").text for _ in range(20)}

        until(lambda: answers() == {"one", "two"})
        consul.ask("PUT", f"agent/service/maintenance/{service}-0?enable=true&reason=works")
        until(lambda: answers() == {"two"}, 3)
        consul.ask("PUT", f"agent/service/maintenance/{service}-1?enable=true&reason=works")
        until(lambda: not consul.passing(service))

        def refused() -> str:
            try:
                http.get(f"http://{service}/")
            except NoEndpoint as error:
                return str(error)
            return ""

        assert "2 in maintenance" in until(refused, 3)
        consul.ask("PUT", f"agent/service/maintenance/{service}-0?enable=false")
        until(lambda: not refused(), 3)
    for number in range(2):
        consul.ask("PUT", f"agent/service/deregister/{service}-{number}")


def test_unknown_service_is_refused_at_once_and_found_when_it_comes(
    mesh: Mesh, consul: ConsulView, site: Serve, service: str
) -> None:
    served = site(PlainTextResponse("here"))
    with mesh.client() as http:
        with pytest.raises(NoEndpoint, match="no instance"):
            http.get(f"http://{service}/")
        consul.add(service, served.port)

        def found() -> bool:
            try:
                return http.get(f"http://{service}/").text == "here"
            except NoEndpoint:
                return False

        until(found, 3)

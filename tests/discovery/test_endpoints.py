"""Which instances can be called, and what is said of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.discovery.endpoints import endpoints, read
from meshsdk_registry import Health, Instance


def one(**facts) -> Instance:
    known = {"id": "p-1", "service": "payments", "node": "n1", "address": "10.0.0.1", "port": 80}
    return Instance(**known | facts)


def test_an_ordinary_instance():
    (endpoint,), refusals = endpoints([one(weight=3, meta={"zone": "b", "version": "2"})])
    assert refusals == ()
    assert (endpoint.key, str(endpoint)) == ("n1/p-1/10.0.0.1:80", "10.0.0.1:80")
    assert (endpoint.weight, endpoint.zone, endpoint.healthy, endpoint.limbo) == (3.0, "b", True, False)
    assert endpoint.meta == {"zone": "b", "version": "2"}


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"port": 0}, "port 0; register the one it listens on"),
        ({"port": -1}, "port -1"),
        ({"port": 65536}, "port 65536"),
        ({"address": ""}, "no address"),
        ({"address": "http://10.0.0.1"}, "neither an IP address nor a host name"),
        ({"address": "10.0.0.1:80"}, "the port apart"),
        ({"address": "10.0.0.300"}, "neither an IP address"),
        ({"address": "two words"}, "neither an IP address"),
        ({"address": "[10.0.0.1"}, "neither an IP address"),
        ({"address": "0.0.0.0"}, "where a server listens"),
        ({"address": "::"}, "where a server listens"),
        ({"weight": 0}, "weight 0: out of rotation"),
    ],
)
def test_what_is_refused_and_why(facts, reason):
    found, (refusal,) = endpoints([one(**facts), one(id="p-2")])[0], endpoints([one(**facts)])[1]
    assert [endpoint.key for endpoint in found] == ["n1/p-2/10.0.0.1:80"], "the neighbour is not touched"
    assert refusal.startswith("p-1 on n1: ")
    assert reason in refusal


@pytest.mark.parametrize("address", ["payments.internal", "node_1", "::1", "fe80::1%eth0", "10.0.0.1", "host.example."])
def test_addresses_that_are_taken(address):
    (endpoint,), refusals = endpoints([one(address=address)])
    assert (endpoint.address, refusals) == (address, ())


def test_brackets_are_for_urls():
    (endpoint,), _ = endpoints([one(address="[2001:db8::1]")])
    assert (endpoint.address, str(endpoint)) == ("2001:db8::1", "[2001:db8::1]:80")


@pytest.mark.parametrize(
    ("health", "healthy"), [(Health.PASSING, True), (Health.WARNING, True), (Health.CRITICAL, False)]
)
def test_a_critical_instance_is_an_unhealthy_endpoint(health, healthy):
    (endpoint,), _ = endpoints([one(health=health)])
    assert endpoint.healthy is healthy


def test_maintenance_is_no_endpoint_and_no_mistake():
    listing = read([one(health=Health.MAINTENANCE), one(id="p-2")])
    assert [endpoint.key for endpoint in listing.endpoints] == ["n1/p-2/10.0.0.1:80"]
    assert (listing.refusals, listing.resting, listing.problem) == ((), 1, "")
    assert listing.named == {"n1/p-1", "n1/p-2"}


def test_the_same_id_on_two_nodes_is_two_endpoints():
    found, refusals = endpoints([one(), one(node="n2")])
    assert [endpoint.key for endpoint in found] == ["n1/p-1/10.0.0.1:80", "n2/p-1/10.0.0.1:80"]
    assert refusals == ()


def test_the_same_entry_thrice_is_one_endpoint_and_said_once():
    found, refusals = endpoints([one(), one(), one()])
    assert len(found) == 1
    assert refusals == ("p-1 on n1: listed 3 times with the same address and port; one is used",)


def test_the_problem_names_all_reasons_but_not_a_thousand():
    listing = read([one(health=Health.MAINTENANCE), *(one(id=f"p-{n}", port=0) for n in range(2, 1002))])
    assert listing.problem.startswith("no registered instance can be called; 1 in maintenance; p-2 on n1: port 0;")
    assert listing.problem.endswith("; and 997 more")
    assert read([]).problem == "", "none registered is not a problem of the registrations"


words = st.text(max_size=12) | st.sampled_from(["10.0.0.1", "[::1]", "::", "web", "fe80::1%eth0", "a/b", "1.2.3"])


@given(
    st.lists(
        st.builds(
            Instance,
            id=st.sampled_from(["a", "b", "a/b", ""]),
            service=st.just("web"),
            node=st.sampled_from(["n", "m", ""]),
            address=words,
            port=st.integers(-1, 70000),
            weight=st.integers(-1, 2),
            health=st.sampled_from(Health),
        )
    )
)
def test_each_instance_is_an_endpoint_or_has_a_reason(instances):
    listing = read(instances)
    keys = [endpoint.key for endpoint in listing.endpoints]
    assert len(set(keys)) == len(keys)
    for endpoint in listing.endpoints:
        assert endpoint.address
        assert 0 < endpoint.port < 65536
        assert endpoint.weight > 0
    assert len(keys) + len(listing.refusals) + listing.resting <= len(instances)
    assert bool(listing.problem) == (not keys and bool(instances))

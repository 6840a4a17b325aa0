"""Who a client is, and how many connections it may have."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsdk_sidecar.gateway.clients import Clients
from meshsdk_sidecar.gateway.config import GatewayLimits

TRUSTED = [ipaddress.ip_network(network) for network in ("10.0.0.0/8", "2001:db8:1::/48")]


def clients(trusted=TRUSTED, **limits) -> Clients:
    return Clients(GatewayLimits(**limits), trusted)


@pytest.mark.parametrize(
    ("peer", "said", "address", "chain"),
    [
        ("192.0.2.1", "1.1.1.1", "192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "", "10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "1.1.1.1, 192.0.2.7", "192.0.2.7", "192.0.2.7, 10.0.0.1"),
        ("::ffff:10.0.0.1", "192.0.2.7:99", "192.0.2.7", "192.0.2.7, ::ffff:10.0.0.1"),
        ("10.0.0.1", "192.0.2.7,10.2.2.2", "192.0.2.7", "192.0.2.7, 10.2.2.2, 10.0.0.1"),
        ("10.0.0.1", "192.0.2.7 , [2001:db8:1::5]:80", "192.0.2.7", "192.0.2.7, 2001:db8:1::5, 10.0.0.1"),
        ("10.0.0.1", "1.1.1.1, evil, 10.2.2.2", "10.2.2.2", "10.2.2.2, 10.0.0.1"),
        ("10.0.0.1", "10.3.3.3", "10.3.3.3", "10.3.3.3, 10.0.0.1"),
    ],
)  # fmt: skip
def test_the_client_is_who_a_trusted_proxy_saw(peer, said, address, chain):
    found = clients().client(peer, [(b"x-Forwarded-For", said.encode())] if said else [])
    assert (found.address, found.chain) == (address, chain)
    assert found.vouched == (peer != "192.0.2.1")


@settings(deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_whatever_is_said_the_chain_is_addresses(said, trusted):
    found = clients().client("10.0.0.1" if trusted else "192.0.2.1", [(b"X-Forwarded-For", said)])
    for address in found.chain.split(", "):
        assert ipaddress.ip_address(address)
    assert found.chain.startswith(found.address)


def test_one_client_of_ipv6_is_its_64():
    found = clients(connections_per_client=2, requests_per_second=1.0, burst=1)
    assert [found.connected(f"2001:db8::{number}") for number in (1, 2, 3)] == [True, True, False]
    assert found.connected("2001:db8:0:1::1")
    found.gone("2001:db8::3")
    found.gone("2001:db8::2")
    assert found.connected("2001:db8::4")
    assert found.wait("2001:db8::1", 0.0) == 0
    assert found.wait("2001:db8::2", 0.0) > 0
    assert found.wait("192.0.2.1", 0.0) == found.wait("::ffff:192.0.2.2", 0.0) == 0
    assert found.wait("::ffff:192.0.2.1", 0.0) > 0


def test_trusted_proxies_have_as_many_connections_as_they_like():
    found = clients(connections_per_client=1)
    assert all(found.connected("10.0.0.1") for _ in range(5))


def test_a_rate_for_all():
    found = clients(requests_per_second=1.5, per="all")  # a burst of twice the rate
    assert [found.wait(f"192.0.2.{number}", 0.0) > 0 for number in range(5)] == [False, False, False, True, True]

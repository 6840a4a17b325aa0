"""SPIFFE ids by the specification's rules."""

from __future__ import annotations

import pytest

from meshsdk.identity.spiffe import SpiffeId

WEB = "spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web"


def test_a_service_of_consul():
    identity = SpiffeId.parse(WEB)
    assert identity.trust_domain == "11111111-2222-3333-4444-555555555555.consul"
    assert (identity.namespace, identity.datacenter, identity.service) == ("default", "dc1", "web")
    assert str(identity) == WEB
    assert identity == SpiffeId.of_service(identity.trust_domain, "dc1", "web")


def test_another_path_is_an_identity_but_no_service():
    identity = SpiffeId.parse("spiffe://example.org/ns/default/dc/dc1/svc/web/x")
    assert (identity.namespace, identity.datacenter, identity.service) == (None, None, None)


def test_the_trust_domain_alone():
    assert SpiffeId.parse("spiffe://example.org") == SpiffeId("example.org")


def test_paths_are_case_sensitive_and_domains_differ():
    assert SpiffeId("a", "/Web") != SpiffeId("a", "/web")
    assert SpiffeId("a", "/web") != SpiffeId("b", "/web")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "spiffe://"),
        ("https://example.org/x", "spiffe://"),
        ("SPIFFE://example.org/x", "spiffe://"),
        ("spiffe:example.org", "spiffe://"),
        ("spiffe://", "trust domain"),
        ("spiffe:///path", "trust domain"),
        ("spiffe://Example.org/x", "trust domain"),
        ("spiffe://user@example.org/x", "trust domain"),
        ("spiffe://example.org:80/x", "trust domain"),
        ("spiffe://exämple.org/x", "trust domain"),
        ("spiffe://" + "a" * 256, "trust domain"),
        ("spiffe://example.org/", "segment is ''"),
        ("spiffe://example.org/x/", "segment is ''"),
        ("spiffe://example.org//x", "segment is ''"),
        ("spiffe://example.org/./x", r"segment is '\.'"),
        ("spiffe://example.org/a/../x", r"segment is '\.\.'"),
        ("spiffe://example.org/a%20b", "only letters"),
        ("spiffe://example.org/x?y=1", "only letters"),
        ("spiffe://example.org/x#y", "only letters"),
        ("spiffe://example.org?y", "trust domain"),
        ("spiffe://example.org/x\n", "only letters"),
        ("spiffe://example.org/" + "a" * 2048, "at most 2048"),
    ],
)
def test_what_is_none_says_why(text: str, why: str):
    with pytest.raises(ValueError, match=why):
        SpiffeId.parse(text)


def test_the_longest_id_allowed():
    text = "spiffe://example.org/" + "a" * (2048 - len("spiffe://example.org/"))
    assert str(SpiffeId.parse(text)) == text


@pytest.mark.parametrize("service", ["", "a/b", "..", "a b"])
def test_a_service_that_cannot_be_in_an_id(service: str):
    with pytest.raises(ValueError, match="SPIFFE id"):
        SpiffeId.of_service("example.org", "dc1", service)


def test_a_path_needs_its_slash():
    with pytest.raises(ValueError, match="start with a slash"):
        SpiffeId("example.org", "web")

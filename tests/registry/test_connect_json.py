"""Invariant: any JSON of Connect is read into the model or is a ValueError that says where; nothing else is raised."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk_registry import (
    Conflict,
    Denied,
    HeaderMatch,
    Missing,
    Permission,
    Rejected,
    ServerFault,
    connect_json,
)
from meshsdk_registry.refusals import refusal

CERT = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"
LEAF = {
    "SerialNumber": "08", "CertPEM": CERT, "Service": "web", "ModifyIndex": 7,
    "PrivateKeyPEM": "-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\n",
    "ServiceURI": "spiffe://d.consul/ns/default/dc/dc1/svc/web",
    "ValidAfter": "2026-11-21T07:40:27Z", "ValidBefore": "2026-11-24T07:40:27.5+01:00",
}  # fmt: skip
ROOTS = {
    "ActiveRootID": "b", "TrustDomain": "d.consul",
    "Roots": [
        {"ID": "a", "Name": "old", "RootCert": CERT, "IntermediateCerts": None, "Active": False,
         "NotAfter": "2036-11-21T07:41:26Z"},
        {"ID": "b", "Name": "new", "RootCert": CERT, "IntermediateCerts": [CERT], "Active": True,
         "NotAfter": "2036-11-21T07:41:26Z"},
    ],
}  # fmt: skip
INTENTION = {
    "SourceName": "a", "DestinationName": "b", "Precedence": 9, "SourceNS": "default", "SourcePeer": "",
    "Permissions": [{"Action": "deny", "HTTP": {"PathExact": "/x", "Methods": ["GET"],
                                                "Header": [{"Name": "h", "Exact": "v", "IgnoreCase": True}]}}],
}  # fmt: skip

NAMES = sorted(
    {*LEAF, *ROOTS, *ROOTS["Roots"][0], *INTENTION, "Action", "HTTP", "Header", "Name", "Provider", "Config"}
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([CERT, "allow", "spiffe://x"]) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=12,
)


def steps_into(value, path=()):
    """The path of every value inside."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from steps_into(inner, (*path, key))


def changed(body, path, value):
    """`body` with another value at `path`; DELETED takes it out."""
    body = copy.deepcopy(body)
    *steps, last = path
    target = body
    for step in steps:
        target = target[step]
    if value is DELETED:
        del target[last]
    else:
        target[last] = value
    return body


@contextmanager
def suppress_told(*words):
    """Let a ValueError pass if it says one of the words."""
    try:
        yield
    except ValueError as error:
        if not any(word in str(error) for word in words):
            raise


DELETED = object()
READERS = {"leaf": LEAF, "roots": ROOTS, "intentions": [INTENTION], "configuration": {"Provider": "consul"}}


def read_or_told(name, body):
    with suppress_told("expected", "missing"):
        getattr(connect_json, name)(body)


@given(json_values)
def test_invariant(body):
    for name in READERS:
        read_or_told(name, body)


@given(st.sampled_from(sorted(READERS)), st.data())
def test_invariant_for_answers_that_are_nearly_right(name, data):
    body = READERS[name]
    path = data.draw(st.sampled_from(list(steps_into(body))))
    read_or_told(name, changed(body, path, data.draw(st.just(DELETED) | json_values)))


def test_a_leaf():
    leaf = connect_json.leaf(LEAF)
    assert (leaf.service, leaf.serial, leaf.modify_index) == ("web", "08", 7)
    assert leaf.valid_after == datetime(2026, 11, 21, 7, 40, 27, tzinfo=UTC)
    assert leaf.valid_before.astimezone(UTC) == datetime(2026, 11, 24, 6, 40, 27, 500000, tzinfo=UTC)


def test_the_whole_chain_is_kept():
    assert connect_json.leaf({**LEAF, "CertPEM": CERT * 3}).cert_pem == CERT * 3


def test_roots_in_any_order_are_the_same_and_the_active_one_is_first():
    roots = connect_json.roots(ROOTS)
    assert [root.id for root in roots.roots] == ["b", "a"]
    assert roots.roots[0].intermediates == (CERT,)
    assert connect_json.roots({**ROOTS, "Roots": ROOTS["Roots"][::-1]}) == roots


@pytest.mark.parametrize(
    ("read", "body", "where"),
    [
        ("leaf", {**LEAF, "CertPEM": "<html>"}, "body.CertPEM: expected PEM of a certificate, got 6 characters"),
        ("leaf", {**LEAF, "PrivateKeyPEM": CERT}, "body.PrivateKeyPEM: expected PEM of a private key"),
        ("leaf", {**LEAF, "ServiceURI": "https://x"}, "body.ServiceURI: expected a SPIFFE id"),
        ("leaf", {**LEAF, "ValidBefore": "soon"}, "body.ValidBefore: expected a time, got 'soon'"),
        ("leaf", {**LEAF, "ValidBefore": "2026-11-24T07:40:27"}, "expected a time with its zone"),
        ("roots", {**ROOTS, "ActiveRootID": "z"}, "body.ActiveRootID: expected the id of a listed root"),
        ("roots", {**ROOTS, "TrustDomain": ""}, "body.TrustDomain: expected a name"),
        ("roots", changed(ROOTS, ["Roots", 0, "Active"], "yes"), r"Roots\[0\].Active: expected bool"),
        ("intentions", [{**INTENTION, "Permissions": []}], r"\[0\].Action: expected allow or deny"),
        ("intentions", changed([INTENTION], [0, "Permissions", 0, "Action"], "x"), r"Permissions\[0\].Action"),
        ("configuration", {"Provider": "consul", "Config": []}, None),
        ("configuration", {"Config": {}}, "body.Provider is missing"),
    ],
)
def test_another_shape_is_refused_with_its_place(read, body, where):
    if where is None:
        assert getattr(connect_json, read)(body).config == {}
        return
    with pytest.raises(ValueError, match=where):
        getattr(connect_json, read)(body)


def test_the_error_about_a_key_does_not_hold_it():
    with pytest.raises(ValueError) as caught:
        connect_json.leaf({**LEAF, "PrivateKeyPEM": "MHcCAQEEIGGFUAHaMTHZ26"})
    assert "MHc" not in str(caught.value)


def test_permissions():
    (one,) = connect_json.intentions([INTENTION])
    header = HeaderMatch("h", exact="v", ignore_case=True)
    assert one.permissions == (Permission("deny", path_exact="/x", methods=("GET",), headers=(header,)),)
    assert (one.action, one.foreign, one.unknown, one.id) == ("", "", (), "")


@pytest.mark.parametrize(
    ("path", "value", "unknown"),
    [
        (["JWT"], {"Providers": [{"Name": "okta"}]}, ("JWT",)),
        (["HTTP", "Query"], [{"Name": "q"}], ("Query",)),
        (["HTTP", "Header", 0, "Newer"], True, ("Newer",)),
        (["HTTP", "Query"], [], ()),
        (["JWT"], None, ()),
    ],
)
def test_conditions_that_are_not_read_are_named(path, value, unknown):
    (one,) = connect_json.intentions([changed(INTENTION, ["Permissions", 0, *path], value)])
    assert one.permissions[0].unknown == unknown


def test_a_jwt_of_the_whole_intention_is_named():
    (one,) = connect_json.intentions([{**INTENTION, "JWT": {"Providers": []}}])
    assert one.unknown == ("JWT",)


@pytest.mark.parametrize(
    ("field", "value", "foreign"),
    [
        ("SourceNS", "team", "namespace 'team'"),
        ("SourcePeer", "east", "peer 'east'"),
        ("DestinationPartition", "p", "partition 'p'"),
        ("SourceSamenessGroup", "g", "sameness group 'g'"),
        ("SourcePartition", "default", ""),
    ],
)
def test_intentions_of_elsewhere_say_so(field, value, foreign):
    (one,) = connect_json.intentions([{**INTENTION, field: value}])
    assert one.foreign == foreign


def test_what_decides_first_comes_first():
    bodies = [
        {"SourceName": source, "DestinationName": "b", "Precedence": precedence, "Action": "deny"}
        for source, precedence in (("*", 8), ("b", 9), ("a", 9))
    ]
    assert [one.source for one in connect_json.intentions(bodies)] == ["a", "b", "*"]
    assert connect_json.intentions(None) == ()


@pytest.mark.parametrize(
    ("status", "text", "kind", "remedy"),
    [
        (500, "Connect must be enabled in order to use this endpoint", Rejected, "connect { enabled = true }"),
        (403, "Permission denied", Denied, "registry/README.md"),
        (500, "duplicate intention found: ALLOW default/a => default/b", Conflict, "read again"),
        (500, "Cannot modify non-existent intention: 'x'", Missing, "read again"),
        (500, "Cannot delete non-existent intention: 'x'", Missing, "read again"),
        (500, "rate limit reached, try again later", ServerFault, "later"),
    ],
)
def test_refusals_say_the_remedy(status, text, kind, remedy):
    error = refusal("http://127.0.0.1:8500", "GET /v1/x", status, text)
    assert type(error) is kind
    assert remedy in str(error)

"""Invariant: any JSON is read into the model or is a ValueError that says where; nothing else is raised."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk_registry import (
    Conflict,
    Denied,
    Health,
    Missing,
    Misunderstood,
    NoLeader,
    Rejected,
    ServerFault,
    TooLarge,
    Unreachable,
    decode,
)
from meshsdk_registry.outage import Back, Lost, Outage
from meshsdk_registry.refusals import refusal

ENTRY = {
    "Node": {"Node": "n1", "Address": "10.0.0.9", "Datacenter": "dc1"},
    "Service": {"ID": "w", "Service": "web", "Address": "", "Port": 80, "Tags": None, "Meta": None,
                "Weights": {"Passing": 5, "Warning": 2}, "ModifyIndex": 7},
    "Checks": [{"CheckID": "serfHealth", "Status": "passing"},
               {"CheckID": "service:w", "Status": "passing", "Output": "ok"}],
}  # fmt: skip


@contextmanager
def suppress_told(*words):
    """Let a ValueError pass if it says one of the words."""
    try:
        yield
    except ValueError as error:
        if not any(word in str(error) for word in words):
            raise


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["Node", "Service", "Checks", "Key"]), inner)
    ),
    max_leaves=10,
)


def changed(path, value):
    entry = copy.deepcopy(ENTRY)
    *steps, last = path
    target = entry
    for step in steps:
        target = target[step]
    target[last] = value
    return [entry]


def test_a_service_without_address_has_its_nodes():
    (instance,) = decode.instances([ENTRY])
    assert (instance.address, instance.port, instance.weight, instance.output) == ("10.0.0.9", 80, 5, "")
    assert (instance.health, instance.meta, instance.tags, instance.modify_index) == (Health.PASSING, {}, (), 7)


def test_a_warning_has_the_warning_weight_and_the_output():
    body = changed(["Checks", 1], {"CheckID": "c", "Status": "warning", "Output": "hot"})
    (instance,) = decode.instances(body)
    assert (instance.health, instance.weight, instance.output) == (Health.WARNING, 2, "hot")


@pytest.mark.parametrize("check", ["_service_maintenance:w", "_node_maintenance"])
def test_maintenance_outranks_critical_and_gives_its_reason(check):
    checks = [
        {"CheckID": "c", "Status": "critical", "Output": "x"},
        {"CheckID": check, "Status": "critical", "Notes": "why"},
    ]
    for order in (checks, checks[::-1]):
        (instance,) = decode.instances(changed(["Checks"], order))
        assert (instance.health, instance.output) == (Health.MAINTENANCE, "why")


def test_the_order_of_the_answer_does_not_matter():
    other = copy.deepcopy(ENTRY)
    other["Service"]["ID"] = "v"
    assert decode.instances([ENTRY, other]) == decode.instances([other, ENTRY])


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "body: expected list"),
        ([1], r"\[0\]: expected dict"),
        (changed(["Service", "Port"], "80"), r"\[0\]\.Service\.Port: expected int, got '80'"),
        (changed(["Service", "Port"], True), r"Port: expected int"),
        (changed(["Service"], {}), r"\[0\]\.Service\.ID is missing"),
        (changed(["Service", "Meta"], {"a": 1}), r"Meta: expected str"),
        (changed(["Checks", 0], {"CheckID": "c", "Status": "odd"}), r"Checks\[0\]\.Status: expected passing"),
    ],
)
def test_another_shape_is_refused_with_its_place(body, where):
    with pytest.raises(ValueError, match=where):
        decode.instances(body)


ACLS_1_8 = {"ACLsEnabled": True, "ACLDefaultPolicy": "deny"}
ACLS_1_19 = {"DefaultIntentionPolicy": "", "ACLResolverSettings": {"ACLsEnabled": True, "ACLDefaultPolicy": "deny"}}


@pytest.mark.parametrize(
    ("debug", "default"),
    [
        (ACLS_1_8, "deny"),
        ({**ACLS_1_8, "ACLDefaultPolicy": "allow"}, "allow"),
        ({**ACLS_1_8, "ACLsEnabled": False}, "allow"),  # a default of ACLs that are off decides nothing
        (ACLS_1_19, "deny"),
        ({**ACLS_1_19, "ACLResolverSettings": {"ACLsEnabled": False, "ACLDefaultPolicy": "deny"}}, "allow"),
        ({**ACLS_1_19, "DefaultIntentionPolicy": "allow"}, "allow"),
        ({"DefaultIntentionPolicy": "deny", "ACLsEnabled": False}, "deny"),
        (None, ""),
        ({}, ""),
        ({"ACLsEnabled": True}, ""),
        ({**ACLS_1_8, "ACLDefaultPolicy": "maybe"}, ""),
        ({**ACLS_1_8, "ACLDefaultPolicy": ["deny"]}, ""),
        ({**ACLS_1_8, "ACLsEnabled": "true"}, ""),
    ],
)
def test_the_default_of_intentions_is_found_in_every_version(debug, default):
    config = {"NodeName": "n1", "Datacenter": "dc1", "Version": "1.8.7"}
    info = decode.agent_info({"Config": config, "DebugConfig": debug})
    assert (info.node, info.intention_default) == ("n1", default)


@given(json_values)
def test_invariant(body):
    readers = (decode.instances, decode.key_values, decode.services, decode.local_checks, decode.local_services)
    for read in (*readers, decode.agent_info):
        with suppress_told("expected", "missing"):
            read(body)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (403, "Permission denied", Denied),
        (403, "ACL not found", Denied),
        (500, "ACL not found", Denied),
        (401, "ACL support disabled", Denied),
        (500, "No cluster leader", NoLeader),
        (500, 'CheckID "x" does not have associated TTL', Missing),
        (404, 'Unknown check ID "x"', Missing),
        (404, "", Missing),
        (500, "No path to datacenter", Rejected),
        (400, "Invalid index", Rejected),
        (405, "method POST not allowed", Rejected),
        (409, "{}", Conflict),
        (413, "too large", TooLarge),
        (429, "slow down", ServerFault),
        (500, "rpc error", ServerFault),
        (503, "<html>", ServerFault),
        (301, "", Misunderstood),
        (101, "", Misunderstood),
    ],
)
def test_refusals(status, text, kind):
    error = refusal("http://127.0.0.1:8500", "GET /v1/x", status, text)
    assert type(error) is kind
    assert f"GET /v1/x at http://127.0.0.1:8500: {status}" in str(error)
    assert " ".join(text.split()) in str(error)


def test_an_outage_is_told_once_for_each_error():
    outage, first, second = Outage(), Unreachable("a"), Unreachable("b")
    assert outage.answered(1) is None
    assert outage.failed(first, 2) == Lost(first, 2)
    assert outage.failed(Unreachable("a"), 3) is None
    assert outage.failed(second, 4) == Lost(second, 2)
    assert outage.failed(Unreachable("a"), 5) is None
    assert outage.answered(6) == Back(4)
    assert outage.answered(7) is None
    assert outage.failed(first, 8) == Lost(first, 8)

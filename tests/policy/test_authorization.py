"""How the access rules of `_mesh` and of a service hold together. Invariant: whatever stands in `authorization` is
refused with a reason, or makes a plan that is read back the same from its own dump.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsdk.core.access import Access
from meshsdk.core.plan import Plan
from meshsdk.core.request import Request
from meshsdk.errors import PolicyError
from meshsdk.policy.diff import Change, diff
from meshsdk.policy.document import Document, parse
from meshsdk.policy.effective import DEFAULTS, dump, effective


def document(authorization: object, source: str = "mesh/policy/payments") -> Document:
    return parse(json.dumps({"version": 1, "authorization": authorization}), source, "payments@41")


def plan(mesh: object = None, own: object = None) -> Plan:
    return effective(
        "",
        "payments",
        None if mesh is None else document(mesh, "mesh/policy/_mesh"),
        None if own is None else document(own),
    )


def read_back(made: Plan) -> Plan:
    text = {key: value for key, value in dump(made).items() if key != "egress"}  # which is not the service's to say
    return effective("", "payments", None, parse(json.dumps(text), "payments", made.version))


def ask(service: str, target: str = "/") -> Request:
    return Request(f"spiffe://td/ns/default/dc/dc1/svc/{service}", "td", "GET", target, lambda _: ())


def test_without_documents_everyone_may_call_and_tls_is_used_where_both_can():
    assert DEFAULTS.access == Access()
    assert DEFAULTS.tls == "permissive"


def test_a_service_cannot_lift_what_the_mesh_denies():
    access = plan(
        {"rules": [{"deny": {"from": ["guest"]}}]}, {"default": "allow", "rules": [{"allow": {"from": ["guest"]}}]}
    ).access
    assert access.decide(ask("guest")).rule == "_mesh.rules[0].deny"


def test_a_rule_of_the_mesh_that_allows_and_one_of_the_service_both_let_in():
    access = plan({"rules": [{"allow": {"from": ["ops"]}}]}, {"rules": [{"allow": {"from": ["checkout"]}}]}).access
    assert access.decide(ask("ops")).rule == "_mesh.rules[0].allow"
    assert access.decide(ask("checkout")).rule == "rules[0].allow"
    assert not access.decide(ask("cart")).allowed


def test_of_the_default_the_service_wins():
    assert not plan({"default": "deny"}, {}).access.decide(ask("cart")).allowed
    assert plan({"default": "deny"}, {"default": "allow"}).access.decide(ask("cart")).allowed


def test_rules_keep_their_own_names_and_those_of_the_mesh_say_so():
    rule = {"name": "no guests", "deny": {}}
    assert [r.name for r in plan({"rules": [rule]}, {"rules": [rule]}).access.rules] == ["_mesh.no guests", "no guests"]


@pytest.mark.parametrize("name", ["x" * 100, "_mesh." + "x" * 100, "_mesh.rules[0].deny"])
def test_a_name_that_the_mesh_may_have_is_good_when_merged(name):
    merged = plan({"rules": [{"name": name, "deny": {}}]}, {})
    assert [rule.name for rule in merged.access.rules] == [f"_mesh.{name}"]


def test_documents_do_not_change_when_their_rules_are_joined():
    mesh = document({"rules": [{"deny": {}}]}, "mesh/policy/_mesh")
    own = document({"rules": [{"allow": {}}]})
    first = effective("", "payments", mesh, own)
    assert effective("", "payments", mesh, own) == first
    assert mesh.content == {"authorization": {"rules": [{"deny": {}}]}}


def test_diff_tells_what_changes_for_callers():
    before, after = document({"rules": []}), document({"default": "deny", "rules": [{"deny": {"from": ["guest"]}}]})
    rules = [{"name": "rules[0].deny", "deny": {"from": ["guest"]}}]
    assert diff(before, after) == [
        Change("authorization.default", "allow", "deny"),
        Change("authorization.rules", [], rules),
    ]


WORDS = st.sampled_from(
    ["checkout", "*", "anonymous", "spiffe://td/*", "GET", "get", "/a", "/a/*", "/a/", "/%2e", "x-a", "deny", "", "ä"]
)
VALUES = st.none() | st.booleans() | st.integers(0, 2) | WORDS | st.lists(WORDS, max_size=3)
MATCHES = VALUES | st.dictionaries(
    st.sampled_from(["from", "methods", "paths", "headers", "path"]),
    VALUES
    | st.dictionaries(WORDS, st.dictionaries(st.sampled_from(["exact", "prefix", "present"]), VALUES), max_size=2),
    max_size=4,
)
RULES = st.dictionaries(st.sampled_from(["allow", "deny", "audit", "name"]), MATCHES, max_size=3)
GOOD = st.fixed_dictionaries(
    {},
    optional={
        "from": st.lists(st.sampled_from(["checkout", "*", "anonymous", "spiffe://td/*"]), min_size=1),
        "methods": st.lists(st.sampled_from(["GET", "POST"]), min_size=1),
        "paths": st.lists(st.sampled_from(["/a", "/a/*", "/*", "/"]), min_size=1),
        "headers": st.dictionaries(
            st.sampled_from(["x-a", "x-b"]), st.sampled_from([{"exact": "1"}, {"present": False}]), min_size=1
        ),
    },
)


@given(st.fixed_dictionaries({"rules": st.lists(RULES | VALUES, max_size=3)}, optional={"default": VALUES}))
@settings(deadline=None)
def test_any_rules(authorization):
    try:
        made = plan(own=authorization)
    except PolicyError as refused:
        reasons = refused.mistakes
    else:
        reasons = ("good",)
        assert read_back(made) == made
    assert reasons
    assert all(reasons)


@given(st.lists(st.tuples(st.sampled_from(["allow", "deny"]), GOOD, st.booleans()), max_size=4), st.booleans())
@settings(deadline=None)
def test_rules_that_are_dumped_are_read_back(rules, in_mesh):
    written = {"rules": [{action: match, "audit": audit} for action, match, audit in rules]}
    made = plan(written, None) if in_mesh else plan(None, written)
    assert len(made.access.rules) == len(rules)
    assert read_back(made) == made

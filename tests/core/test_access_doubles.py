"""Headers and their doubles: `x_role` is `x-role` to some applications, so a rule must hold either way."""

from __future__ import annotations

import pytest

from meshsdk.core.access import Access, Rule
from meshsdk.core.intentions import Intentions
from meshsdk.core.request import Header, Request
from meshsdk_registry import HeaderMatch, Intention, Permission

CHECKOUT = "spiffe://mesh.consul/ns/default/dc/dc1/svc/checkout"


def request(values: list[str], doubles: list[str]) -> Request:
    return Request(CHECKOUT, "mesh.consul", "GET", "/", lambda _: values, doubles=lambda _: doubles)


CASES = [  # values, doubles, and for the conditions exact "a" and absence: surely, possibly
    (["a"], [], (True, True), (False, False)),
    ([], ["a"], (False, True), (False, True)),
    (["a"], ["b"], (False, True), (False, False)),
    (["b"], ["a"], (False, True), (False, False)),
    (["a"], ["a"], (True, True), (False, False)),
    ([], ["b"], (False, False), (False, True)),
    ([], [], (False, False), (True, True)),
]


@pytest.mark.parametrize(("values", "doubles", "exact", "absent"), CASES)
def test_rules(values: list[str], doubles: list[str], exact: tuple[bool, bool], absent: tuple[bool, bool]) -> None:
    for header, (surely, possibly) in ((Header("x", exact="a"), exact), (Header("x", present=False), absent)):
        permits = Access("deny", (Rule("r", "allow", headers=(header,)),))
        forbids = Access("allow", (Rule("r", "deny", headers=(header,)),))
        assert permits.decide(request(values, doubles)).allowed is surely
        assert forbids.decide(request(values, doubles)).allowed is not possibly


@pytest.mark.parametrize(("values", "doubles", "exact", "absent"), CASES)
def test_intentions(values: list[str], doubles: list[str], exact: tuple[bool, bool], absent: tuple[bool, bool]) -> None:
    conditions = (HeaderMatch("x", exact="a"), exact), (HeaderMatch("x", present=True, invert=True), absent)
    for header, (surely, possibly) in conditions:
        for action, met in (("allow", surely), ("deny", possibly)):
            permission = Permission(action, headers=(header,))  # type: ignore[arg-type]
            entry = Intention("", "checkout", "shop", "", 9, permissions=(permission,))
            found = Intentions((entry,), "shop", default_allow=action == "deny").decide(request(values, doubles))
            assert found.allowed is (met if action == "allow" else not met)

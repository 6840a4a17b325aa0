"""Rules and intentions for connections whose requests nobody reads: what they ask of requests never lets one in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.core.access import Access, Rule
from meshsdk.core.intentions import Intentions
from meshsdk.core.request import Header, Request
from meshsdk_registry import Intention, Permission

DOMAIN = "test.consul"
WEB = f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/web"


def connection(peer: str | None = WEB) -> Request:
    return Request(peer, DOMAIN, "TCP", "", lambda name: [])


ASKS = [{"methods": ("TCP",)}, {"paths": ("/*",)}, {"headers": (Header("x", present=False),)}]


@pytest.mark.parametrize("asks", ASKS)
def test_an_allow_rule_that_asks_something_of_requests_lets_no_connection_in(asks: dict) -> None:  # type: ignore[type-arg]
    access = Access("allow", (Rule("asks", "allow", ("web",), **asks),)).for_connections()
    decision = access.decide(connection())
    assert (decision.allowed, decision.rule) == (False, "default")


@pytest.mark.parametrize("asks", ASKS)
def test_a_deny_rule_refuses_every_connection_of_its_sources(asks: dict) -> None:  # type: ignore[type-arg]
    access = Access("allow", (Rule("asks", "deny", ("web",), **asks),)).for_connections()
    assert access.decide(connection()).rule == "asks"
    assert access.decide(connection(WEB.replace("web", "orders"))).allowed
    assert access.decide(connection(None)).allowed


def test_a_rule_about_callers_alone_is_the_same() -> None:
    access = Access("deny", (Rule("web", "allow", ("web",)),))
    assert access.for_connections().decide(connection()) == access.decide(connection())


def test_a_rule_on_trial_stays_on_trial() -> None:
    access = Access("allow", (Rule("trial", "deny", (), (), ("/admin/*",), (), True),)).for_connections()
    decision = access.decide(connection())
    assert (decision.allowed, decision.audited) == (True, "trial")


RULES = st.builds(
    Rule,
    name=st.sampled_from(["a", "b"]),
    action=st.sampled_from(["allow", "deny"]),
    sources=st.sampled_from([(), ("web",), ("orders",), ("*",), ("anonymous",)]),
    methods=st.sampled_from([(), (), ("GET",), ("POST", "PUT")]),
    paths=st.sampled_from([(), (), ("/a",), ("/a/*",)]),
)


@given(
    rules=st.lists(RULES, max_size=5),
    default=st.sampled_from(["allow", "deny"]),
    peer=st.sampled_from([None, WEB]),
    method=st.sampled_from(["GET", "POST", "DELETE"]),
    path=st.sampled_from(["/a", "/a/b", "/c"]),
)
def test_no_connection_passes_in_which_a_request_would_be_refused(
    rules: list[Rule], default: str, peer: str | None, method: str, path: str
) -> None:
    access = Access(default, tuple(rules))  # type: ignore[arg-type]
    if access.for_connections().decide(connection(peer)).allowed:
        assert access.decide(Request(peer, DOMAIN, method, path, lambda name: [])).allowed


def test_an_intention_with_permissions_denies() -> None:
    asking = Intention("", "web", "db", "", 9, (Permission("allow", path_prefix="/"),))
    intentions = Intentions([asking], "db", default_allow=True)
    assert intentions.decide(Request(WEB, DOMAIN, "GET", "/", lambda name: [])).allowed
    decision = intentions.for_connections().decide(connection())
    assert (decision.allowed, decision.rule) == (False, "intention web => db")
    assert intentions.decide(Request(WEB, DOMAIN, "GET", "/", lambda name: [])).allowed, "the original is unchanged"


@pytest.mark.parametrize("action", ["allow", "deny"])
def test_an_intention_about_callers_alone_is_the_same(action: str) -> None:
    intentions = Intentions([Intention("", "web", "db", action, 9)], "db", default_allow=action == "deny")
    assert intentions.for_connections().decide(connection()).allowed is (action == "allow")

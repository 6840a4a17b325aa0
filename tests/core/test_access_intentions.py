"""Consul's intentions: which one speaks, what its permissions say, and the policy after them. Invariant: a condition
that cannot be judged never lets a request pass that would not pass if it were judged either way.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.core.access import Access, Decision, Rule
from meshsdk.core.entries import Entry
from meshsdk.core.intentions import Intentions, decide
from meshsdk.core.request import Request
from meshsdk_registry import HeaderMatch, Intention, Permission

DOMAIN = "1a2b.consul"
PRECEDENCE = {(False, False): 9, (True, False): 8, (False, True): 6, (True, True): 5}


def spiffe(service: str, domain: str = DOMAIN) -> str:
    return f"spiffe://{domain}/ns/default/dc/dc1/svc/{service}"


def ask(service: str | None = "web", method: str = "GET", target: str = "/", **headers: str | list[str]) -> Request:
    given = {name.replace("_", "-"): [value] if isinstance(value, str) else value for name, value in headers.items()}
    peer = service if service is None or "/" in service else spiffe(service)
    return Request(peer, DOMAIN, method, target, lambda name: given.get(name, ()))


def intend(source: str, destination: str, action: str = "", *permissions: Permission, **more: object) -> Intention:
    precedence = PRECEDENCE[source == "*", destination == "*"]
    return Intention("", source, destination, action, precedence, permissions, **more)


def decided(*entries: Entry, request: Request | None = None, default: bool = False) -> Decision:
    return Intentions(entries, "db", default_allow=default).decide(request or ask())


def permits(permission: Permission, request: Request) -> bool:
    """Whether the permission decides; around it stands the opposite."""
    decision = decided(intend("web", "db", "", permission), request=request, default=permission.action == "deny")
    assert decision.allowed is (permission.action == "allow") or decision.reason == "no permission matches"
    return decision.reason != "no permission matches"


@pytest.mark.parametrize("default", [True, False])
def test_without_intentions_the_default_holds(default):
    assert decided(default=default) == Decision(default, "intentions default", "no intention is about the caller")
    others = intend("web", "cache", "deny"), intend("cart", "db", "allow")
    assert decided(*others, default=default).allowed is default


def test_the_intention_that_decides_is_named():
    assert decided(intend("web", "db", "allow")) == Decision(True, "intention web => db", "the intention allows it")
    assert decided(intend("*", "db", "deny")) == Decision(False, "intention * => db", "the intention denies it")


def test_precedence():
    ranked = [("web", "db"), ("*", "db"), ("web", "*"), ("*", "*")]
    for (first, second), actions in itertools.product(
        itertools.combinations(ranked, 2), [("allow", "deny"), ("deny", "allow")]
    ):
        entries = [intend(*first, actions[0]), intend(*second, actions[1])]
        for order in (entries, entries[::-1]):
            decision = decided(*order, default=actions[1] == "allow")
            assert (decision.allowed, decision.rule) == (actions[0] == "allow", f"intention {first[0]} => {first[1]}")


def test_an_unknown_action_denies():
    assert not decided(intend("web", "db", "log"), default=True).allowed


def test_intentions_about_services_elsewhere_say_nothing():
    assert decided(intend("web", "db", "deny", foreign="peer 'east'"), default=True).rule == "intentions default"
    assert decided(intend("web", "db", "deny", source_type="external"), default=True).rule == "intentions default"


@pytest.mark.parametrize(
    "peer",
    [
        None,
        spiffe("web", "other.consul"),
        f"spiffe://{DOMAIN}/agent/client/dc/dc1/id/x",
        f"spiffe://{DOMAIN}/ops/alice",
    ],
)
def test_who_is_no_service_of_ours_is_denied_by_a_wildcard_and_not_let_in(peer):
    for default in (True, False):
        assert not decided(intend("*", "db", "deny"), request=ask(peer), default=default).allowed
        for entry in (intend("*", "db", "allow"), intend("web", "db", "allow"), intend("web", "db", "deny")):
            decision = decided(entry, request=ask(peer), default=default)
            assert (decision.allowed, decision.rule) == (default, "intentions default")
    closed = intend("*", "db", "", Permission("deny", path_prefix="/admin"), Permission("allow"))
    assert not decided(closed, request=ask(peer, target="/admin"), default=True).allowed
    assert not decided(closed, request=ask(peer, target="/"), default=False).allowed


def test_the_first_permission_that_matches_decides():
    entry = intend(
        "web",
        "db",
        "",
        Permission("deny", path_prefix="/admin"),
        Permission("allow", path_prefix="/", methods=("GET",)),
    )
    assert decided(entry).rule == "intention web => db permissions[1]"
    assert decided(entry, request=ask(target="/admin/x")).rule == "intention web => db permissions[0]"
    assert not decided(entry, request=ask(target="/admin/x"), default=True).allowed
    for default in (True, False):
        decision = decided(entry, request=ask(method="PUT"), default=default)
        assert decision == Decision(default, "intention web => db", "no permission matches")


def test_permissions_hide_an_intention_of_lower_precedence():
    entries = intend("web", "db", "", Permission("allow", path_exact="/a")), intend("*", "db", "allow")
    assert not decided(*entries, request=ask(target="/b")).allowed


@pytest.mark.parametrize("action", ["allow", "deny"])
@pytest.mark.parametrize(
    ("condition", "target", "fits"),
    [
        ({}, "/x", True),
        ({"path_exact": "/a"}, "/a?b=c", True),
        ({"path_exact": "/a"}, "/a/", False),
        ({"path_exact": "/a"}, "/ab", False),
        ({"path_exact": "/caf%c3%a9:x"}, "/caf%C3%A9%3ax", True),
        ({"path_prefix": "/v2"}, "/v2", True),
        ({"path_prefix": "/v2"}, "/v20", True),
        ({"path_prefix": "/v2/"}, "/v2", False),
        ({"path_prefix": "/v2/"}, "/v2/", True),
        ({"path_regex": "/v[0-9]+/.*"}, "/v2/x", True),
        ({"path_regex": "/v[0-9]"}, "/v2/x", False),
    ],
)
def test_paths(action, condition, target, fits):
    assert permits(Permission(action, **condition), ask(target=target)) is fits


@pytest.mark.parametrize(
    ("condition", "target"),
    [
        ({"path_exact": "/admin"}, "/x/../admin"),
        ({"path_prefix": "/admin"}, "/x/%2e%2e/admin"),
        ({"path_regex": "/admin.*"}, "//admin"),
        ({"path_prefix": "/admin"}, "/admin/../x"),
        ({"path_exact": "/x"}, "/%00"),
        ({"path_regex": ".*"}, "/" + "a" * 5000),
        ({"path_regex": r"(?=a)"}, "/x"),
        ({"path_exact": "/%zz"}, "/x"),
        ({"path_prefix": "/caf\u00e9"}, "/x"),
    ],
)
def test_what_may_or_may_not_fit_is_denied(condition, target):
    assert permits(Permission("deny", **condition), ask(target=target))
    assert not permits(Permission("allow", **condition), ask(target=target))


def test_methods():
    assert permits(Permission("allow", methods=("GET", "PUT")), ask(method="PUT"))
    assert not permits(Permission("allow", methods=("GET",)), ask(method="HEAD"))
    assert not permits(Permission("allow", methods=("GET",)), ask(method="get"))
    assert permits(Permission("deny", methods=("GET",)), ask(method="get"))


@pytest.mark.parametrize(
    ("header", "values", "allows", "denies"),
    [
        ({"present": True}, "x", True, True),
        ({"present": True}, [], False, False),
        ({"present": True, "invert": True}, [], True, True),
        ({"present": True, "invert": True}, "x", False, False),
        ({"exact": "admin"}, "admin", True, True),
        ({"exact": "admin"}, "Admin", False, False),
        ({"exact": "admin", "ignore_case": True}, "ADMIN", True, True),
        ({"exact": "admin"}, [], False, False),
        ({"exact": "admin"}, ["admin", "guest"], False, True),
        ({"exact": "admin"}, "guest,admin", False, True),
        ({"exact": "a,b"}, ["a", "b"], False, True),
        ({"prefix": "adm"}, "admin", True, True),
        ({"suffix": "min"}, "admin", True, True),
        ({"suffix": "min"}, "minor", False, False),
        ({"contains": "dmi"}, "admin", True, True),
        ({"contains": "DMI", "ignore_case": True}, "admin", True, True),
        ({"regex": "a.*n"}, "admin", True, True),
        ({"regex": "a.*n"}, "admins", False, False),
        ({"regex": "(?=a)"}, "admin", False, True),
        ({"regex": "(?=a)", "invert": True}, "admin", False, True),
        ({"exact": "admin", "invert": True}, "guest", True, True),
        ({"exact": "admin", "invert": True}, "admin", False, False),
        ({"exact": "admin", "invert": True}, [], False, True),
        ({"exact": "admin", "invert": True}, ["guest", "admin"], False, True),
        ({}, "x", False, True),
    ],
)
def test_headers(header, values, allows, denies):
    conditions = (HeaderMatch("X-Role", **header),)
    assert permits(Permission("allow", headers=conditions), ask(x_role=values)) is allows
    assert permits(Permission("deny", headers=conditions), ask(x_role=values)) is denies


def test_every_condition_must_be_met():
    permission = Permission("allow", path_prefix="/a", methods=("GET",), headers=(HeaderMatch("x", present=True),))
    assert permits(permission, ask(target="/a", x="1"))
    assert not permits(permission, ask(target="/b", x="1"))
    assert not permits(permission, ask(target="/a", method="PUT", x="1"))
    assert not permits(permission, ask(target="/a"))


def test_conditions_that_are_not_known_never_let_pass():
    assert not permits(Permission("allow", unknown=("JWT",)), ask())
    assert permits(Permission("deny", unknown=("JWT",)), ask())
    for default in (True, False):
        whole = decided(intend("web", "db", "allow", unknown=("JWT",)), default=default)
        assert whole == Decision(False, "intention web => db", "it has conditions that are not judged here")
        parts = intend("web", "db", "", Permission("allow"), unknown=("JWT",))
        assert not decided(parts, default=default).allowed
    assert decided(intend("web", "db", "deny", unknown=("JWT",)), default=True).reason == "the intention denies it"


def test_what_is_not_judged_is_told_once():
    entries = [
        intend("web", "db", "", Permission("allow", path_regex="a**"), Permission("deny", unknown=("JWT",))),
        intend("cart", "db", "", Permission("deny", path_exact="/%zz", headers=(HeaderMatch("x", regex="["),))),
        intend("shop", "db", "allow", unknown=("JWT",)),
        intend("shop", "*", "", Permission("allow", path_regex="*")),
    ]
    assert Intentions(entries, "db", default_allow=False).refusals == (
        "intention web => db permissions[0].path: a repeat of a repeat at character 4",
        "intention web => db permissions[1]: JWT is not judged",
        "intention cart => db permissions[0].path: an invalid escape",
        "intention cart => db permissions[0].header x: a [ without its ] at character 2",
        "intention shop => db: JWT is not judged",
    )


def test_intentions_come_first_and_both_must_let_pass():
    policy = Access("allow", (Rule("rules[0].deny", "deny", paths=("/admin/*",)),))
    allowing = Intentions([intend("web", "db", "allow")], "db", default_allow=False)
    denying = Intentions([], "db", default_allow=False)
    assert decide(policy, allowing, ask()) == Decision(True, "default", "no rule matches")
    assert decide(policy, allowing, ask(target="/admin/x")).rule == "rules[0].deny"
    assert decide(policy, denying, ask(target="/admin/x")).rule == "intentions default"
    assert decide(policy, None, ask()).allowed
    assert not decide(policy, None, ask(target="/admin/x")).allowed


UNSURE = st.sampled_from([{"path_regex": "(?=a)"}, {"unknown": ("JWT",)}, {"headers": (HeaderMatch("x", regex="["),)}])
SURE = st.sampled_from([{"path_prefix": "/a"}, {"path_exact": "/b"}, {"methods": ("GET",)}, {}])
ACTIONS = st.sampled_from(["allow", "deny"])
PARTS = st.tuples(ACTIONS, st.booleans(), st.one_of(UNSURE, SURE))


@given(st.lists(PARTS, max_size=4), st.booleans(), st.sampled_from(["/a", "/b", "/c"]))
def test_a_condition_that_is_not_judged_is_taken_at_its_worst(parts, default, target):
    """If the request passes, it also passes with each such permission left out, and with each taken as matching."""
    request = ask(target=target, x="1")
    permissions = [Permission(action, **condition) for action, _, condition in parts]
    decision = decided(intend("web", "db", "", *permissions), request=request, default=default)
    is_unsure = [bool(p.unknown or p.path_regex or p.headers) for p in permissions]
    for choice in itertools.product([True, False], repeat=sum(is_unsure)):
        taken = iter(choice)
        judged = [
            Permission(p.action) if unsure else p
            for p, unsure in zip(permissions, is_unsure, strict=True)
            if not unsure or next(taken)
        ]
        entry = intend("web", "db", "", *judged) if judged else None
        otherwise = decided(*([entry] if entry else []), request=request, default=default)
        assert otherwise.allowed or not decision.allowed

"""Who may do what: the order of rules, what each part matches, what is audited. Invariant: an audited rule decides
nothing, and the order in which rules of one kind stand changes no answer.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.core.access import Access, Decision, Rule, check_source, narrow
from meshsdk.core.request import ANONYMOUS, ANYONE, Header, Request

DOMAIN = "1a2b.consul"


def spiffe(service: str, domain: str = DOMAIN, datacenter: str = "dc1", namespace: str = "default") -> str:
    return f"spiffe://{domain}/ns/{namespace}/dc/{datacenter}/svc/{service}"


def ask(peer: str | None = None, method: str = "GET", target: str = "/", **headers: str | list[str]) -> Request:
    given = {name.replace("_", "-"): [value] if isinstance(value, str) else value for name, value in headers.items()}
    return Request(peer, DOMAIN, method, target, lambda name: given.get(name, ()))


def deny(name: str = "no", **parts: object) -> Rule:
    return Rule(name, "deny", **parts)


def allow(name: str = "yes", **parts: object) -> Rule:
    return Rule(name, "allow", **parts)


def matches(rule: Rule, request: Request) -> bool:
    """Whether the rule decides, be it an allow or a deny rule."""
    decision = Access("allow" if rule.action == "deny" else "deny", (rule,)).decide(request)
    return decision.rule == rule.name


def test_without_rules_the_default_decides():
    assert Access().decide(ask()) == Decision(True, "default", "no rule matches")
    assert Access("deny").decide(ask(spiffe("checkout"))) == Decision(False, "default", "no rule matches")


def test_deny_comes_before_allow_wherever_it_stands():
    for rules in ((deny(), allow()), (allow(), deny())):
        assert Access("allow", rules).decide(ask()) == Decision(False, "no", "a deny rule matches")


def test_the_first_rule_of_a_kind_that_matches_gives_its_name():
    assert Access("allow", (deny("a", methods=("PUT",)), deny("b"), deny("c"))).decide(ask()).rule == "b"
    assert Access("deny", (allow("a", methods=("PUT",)), allow("b"), allow("c"))).decide(ask()).rule == "b"


@pytest.mark.parametrize("default", ["allow", "deny"])
def test_once_there_is_an_allow_rule_what_none_matches_is_refused(default):
    access = Access(default, (allow(sources=("checkout",)),))
    assert access.decide(ask(spiffe("checkout"))) == Decision(True, "yes", "an allow rule matches")
    assert access.decide(ask(spiffe("cart"))) == Decision(False, "default", "no allow rule matches")
    assert access.decide(ask()) == Decision(False, "default", "no allow rule matches")


def test_the_example_of_the_design():
    rules = (
        deny("rules[0].deny", sources=("guest",), paths=("/admin/*",)),
        allow("rules[1].allow", sources=("checkout",), methods=("POST",), paths=("/charge",)),
    )
    access = Access("allow", rules)
    assert access.decide(ask(spiffe("checkout"), "POST", "/charge")).allowed
    assert access.decide(ask(spiffe("guest"), "GET", "/admin/x")).rule == "rules[0].deny"
    assert not access.decide(ask(spiffe("checkout"), "GET", "/charge")).allowed
    assert str(access.decide(ask(spiffe("guest"), "GET", "/admin"))) == "denied by rules[0].deny: a deny rule matches"


@pytest.mark.parametrize("action", ["allow", "deny"])
@pytest.mark.parametrize(
    ("source", "peer", "is_named"),
    [
        ("checkout", spiffe("checkout"), True),
        ("checkout", spiffe("checkout", datacenter="dc2"), True),
        ("checkout", spiffe("checkout-2"), False),
        ("checkout", spiffe("checkout", domain="other.consul"), False),
        ("checkout", spiffe("checkout", domain=f"{DOMAIN}.evil"), False),
        ("checkout", spiffe("checkout", namespace="team"), False),
        ("checkout", f"spiffe://{DOMAIN}/ap/east/ns/default/dc/dc1/svc/checkout", False),
        ("checkout", spiffe("checkout") + "/svc/checkout", False),
        ("checkout", spiffe("checkout") + "\n", False),
        ("checkout", f"spiffe://{DOMAIN}/x/ns/default/dc/dc1/svc/checkout", False),
        ("checkout", "checkout", False),
        ("checkout", None, False),
        ("checkout", "", False),
        (spiffe("cart"), spiffe("cart"), True),
        (spiffe("cart"), spiffe("cart", datacenter="dc2"), False),
        (f"spiffe://{DOMAIN}/ns/default/*", spiffe("cart"), True),
        (f"spiffe://{DOMAIN}/ns/def/*", spiffe("cart"), False),
        (f"spiffe://{DOMAIN}/*", spiffe("cart"), True),
        (f"spiffe://{DOMAIN}/*", f"spiffe://{DOMAIN}", False),
        (f"spiffe://{DOMAIN}/*", spiffe("cart", domain=f"{DOMAIN}.evil"), False),
        (f"spiffe://{DOMAIN}/*", None, False),
        ("spiffe://other.consul/jobs/*", "spiffe://other.consul/jobs/nightly", True),
        (ANYONE, spiffe("cart"), True),
        (ANYONE, "spiffe://other.consul/jobs/nightly", True),
        (ANYONE, None, False),
        (ANYONE, "", False),
        (ANONYMOUS, None, True),
        (ANONYMOUS, "", True),
        (ANONYMOUS, spiffe("cart"), False),
        (ANONYMOUS, spiffe("anonymous"), False),
    ],
)
def test_sources(action, source, peer, is_named):
    assert matches(Rule("r", action, sources=(source,)), ask(peer)) is is_named


@pytest.mark.parametrize("peer", [None, spiffe("cart"), "spiffe://other.consul/x"])
def test_without_sources_everyone_is_meant(peer):
    assert matches(allow(), ask(peer))
    assert matches(deny(), ask(peer))


def test_methods():
    assert matches(allow(methods=("GET", "POST")), ask(method="POST"))
    assert not matches(allow(methods=("GET",)), ask(method="HEAD"))
    assert not matches(allow(methods=("GET",)), ask(method="get"))
    assert matches(deny(methods=("DELETE",)), ask(method="delete"))
    assert not matches(deny(methods=("DELETE",)), ask(method="GET"))


@pytest.mark.parametrize(
    ("path", "target", "is_at"),
    [
        ("/charge", "/charge", True),
        ("/charge", "/charge/", True),
        ("/charge", "/charge?x=/admin", True),
        ("/charge", "/charges", False),
        ("/charge", "/Charge", False),
        ("/charge", "/charge/x", False),
        ("/admin/*", "/admin", True),
        ("/admin/*", "/admin/", True),
        ("/admin/*", "/admin/users/1", True),
        ("/admin/*", "/administrator", False),
        ("/*", "/", True),
        ("/*", "/x", True),
        ("/", "/", True),
        ("/", "/x", False),
    ],
)
@pytest.mark.parametrize("action", ["allow", "deny"])
def test_paths(action, path, target, is_at):
    assert matches(Rule("r", action, paths=("/elsewhere", path)), ask(target=target)) is is_at


@pytest.mark.parametrize(
    ("header", "values", "allows", "denies"),
    [
        (Header("x-tier", exact="1"), "1", True, True),
        (Header("x-tier", exact="1"), "2", False, False),
        (Header("x-tier", exact="1"), [], False, False),
        (Header("x-tier", exact="1"), ["1", "2"], False, True),
        (Header("x-tier", exact="1"), "2, 1", False, True),
        (Header("x-tier", prefix="be"), "beta", True, True),
        (Header("x-tier", prefix="be"), "alpha", False, False),
        (Header("x-tier", prefix="curl"), "curl/8 (a, b)", True, True),
        (Header("x-tier", present=True), "", True, True),
        (Header("x-tier", present=True), [], False, False),
        (Header("x-tier", present=False), [], True, True),
        (Header("x-tier", present=False), "1", False, False),
    ],
)
def test_headers(header, values, allows, denies):
    request = ask(x_tier=values)
    assert matches(allow(headers=(header,)), request) is allows
    assert matches(deny(headers=(header,)), request) is denies


def test_every_part_of_a_rule_must_match():
    rule = deny(sources=("guest",), methods=("GET",), paths=("/a",), headers=(Header("x", present=True),))
    assert matches(rule, ask(spiffe("guest"), "GET", "/a", x="1"))
    assert not matches(rule, ask(spiffe("cart"), "GET", "/a", x="1"))
    assert not matches(rule, ask(spiffe("guest"), "PUT", "/a", x="1"))
    assert not matches(rule, ask(spiffe("guest"), "GET", "/b", x="1"))
    assert not matches(rule, ask(spiffe("guest"), "GET", "/a"))


def test_an_unclear_path_is_named_in_the_reason():
    access = Access("allow", (deny(paths=("/admin",)),))
    assert access.decide(ask(target="/%00")) == Decision(
        False, "no", "the path cannot be read: an escaped control character"
    )
    assert access.decide(ask(target="/admin")).reason == "a deny rule matches"


def test_what_a_caller_may_do_is_kept_by_caller_and_not_mixed_up():
    access = Access("deny", (allow(sources=("checkout",), methods=("POST",)), allow("anon", sources=(ANONYMOUS,))))
    for _ in range(2):
        assert access.decide(ask(spiffe("checkout"), "POST")).allowed
        assert not access.decide(ask(spiffe("checkout"), "GET")).allowed
        assert access.decide(ask(None, "GET")).rule == "anon"
        assert not access.decide(Request(spiffe("checkout"), "other.consul", "POST", "/", lambda _: ())).allowed


def test_made_up_methods_do_not_fill_the_memory():
    access = Access("deny", (allow(methods=("GET",)),))
    for number in range(10_000):
        assert not access.decide(ask(method=f"M{number}")).allowed
    assert len(access._verdict._known) <= 4096
    assert access.decide(ask()).allowed


def test_an_audited_deny_rule_reports_and_lets_pass():
    access = Access("allow", (deny("trial", audit=True, paths=("/old/*",)),))
    decision = access.decide(ask(target="/old/x"))
    assert decision == Decision(True, "default", "no rule matches", audited="trial")
    assert str(decision).endswith("; trial is audited and would have refused it")
    assert access.decide(ask(target="/new")).audited is None


def test_an_audited_allow_rule_does_not_close_the_service():
    access = Access("allow", (allow("trial", audit=True, sources=("checkout",)),))
    assert access.decide(ask(spiffe("checkout"))).audited is None
    assert access.decide(ask(spiffe("cart"))) == Decision(True, "default", "no rule matches", audited="trial")


def test_an_audited_allow_rule_does_not_open_it_either():
    access = Access("deny", (allow("trial", audit=True, sources=("checkout",)),))
    decision = access.decide(ask(spiffe("checkout")))
    assert decision == Decision(False, "default", "no rule matches", audited="trial")
    assert str(decision).endswith("; trial is audited and would have allowed it")


def test_an_audited_rule_that_changes_nothing_is_not_reported():
    access = Access("allow", (deny(), deny("trial", audit=True)))
    assert access.decide(ask()) == Decision(False, "no", "a deny rule matches")


RULES = st.builds(
    Rule,
    name=st.sampled_from("abc"),
    action=st.sampled_from(["allow", "deny"]),
    sources=st.lists(st.sampled_from(["checkout", "cart", ANYONE, ANONYMOUS]), max_size=2).map(tuple),
    methods=st.lists(st.sampled_from(["GET", "POST"]), max_size=1).map(tuple),
    paths=st.lists(st.sampled_from(["/a", "/a/*", "/*"]), max_size=2).map(tuple),
    headers=st.lists(st.builds(Header, st.just("x"), exact=st.just("1")), max_size=1).map(tuple),
    audit=st.booleans(),
)
REQUESTS = st.builds(
    ask,
    st.sampled_from([None, spiffe("checkout"), spiffe("cart"), spiffe("cart", domain="other.consul")]),
    st.sampled_from(["GET", "POST", "post"]),
    st.sampled_from(["/", "/a", "/a/b", "/b/../a", "/%00"]),
    x=st.sampled_from([[], ["1"], ["2"], ["1", "2"]]),
)
ACCESSES = st.builds(Access, st.sampled_from(["allow", "deny"]), st.lists(RULES, max_size=5).map(tuple))


@given(ACCESSES, REQUESTS)
def test_an_audited_rule_decides_nothing(access, request):
    enforced = tuple(rule for rule in access.rules if not rule.audit)
    everything = tuple(replace(rule, audit=False) for rule in access.rules)
    decision = access.decide(request)
    assert replace(decision, audited=None) == Access(access.default, enforced).decide(request)
    would = Access(access.default, everything).decide(request)
    assert (decision.audited is not None) == (would.allowed is not decision.allowed)
    assert decision.audited is None or decision.audited in {rule.name for rule in access.rules if rule.audit}


@given(ACCESSES, REQUESTS)
def test_the_order_of_rules_changes_no_answer(access, request):
    turned = Access(access.default, access.rules[::-1])
    assert turned.decide(request).allowed is access.decide(request).allowed


@given(ACCESSES, RULES, REQUESTS)
def test_another_deny_rule_never_lets_more_pass(access, rule, request):
    more = Access(access.default, (*access.rules, replace(rule, action="deny", audit=False)))
    assert access.decide(request).allowed or not more.decide(request).allowed


@pytest.mark.parametrize(
    "source",
    [
        "checkout",
        "a",
        "0-9",
        "*",
        "anonymous",
        "spiffe://td",
        "spiffe://td/*",
        "spiffe://t.d_1/A/b.c",
        "spiffe://td/a/*",
    ],
)
def test_sources_that_name_somebody(source):
    check_source(source)
    assert narrow(source).rules[0].sources == (source,)


@pytest.mark.parametrize(
    ("source", "write"),
    [
        ("", "write a service such as checkout"),
        ("Checkout", "write a service such as checkout"),
        ("check out", "write a service such as checkout"),
        ("checkout*", "write a service such as checkout"),
        ("checkout\n", "write a service such as checkout"),
        ("a" * 64, "write a service such as checkout"),
        ("spiffe://", "write spiffe://"),
        ("spiffe://TD/a", "write spiffe://"),
        ("spiffe://td/", "write spiffe://"),
        ("spiffe://td/a*", "write spiffe://"),
        ("spiffe://td/../b", "write spiffe://"),
        ("spiffe://td//b", "write spiffe://"),
        ("spiffe://td/a?b", "write spiffe://"),
        ("spiffe://*/a", "write spiffe://"),
    ],
)
def test_sources_that_name_nobody(source, write):
    with pytest.raises(ValueError, match=write):
        check_source(source)
    with pytest.raises(ValueError, match=f"@mesh.allow on refund from .*{write}"):
        narrow([source], "@mesh.allow on refund")


def test_code_narrows_with_the_words_of_the_policy():
    access = narrow(["checkout", f"spiffe://{DOMAIN}/ops/*"], "@mesh.allow on refund")
    assert access.decide(ask(spiffe("checkout"))) == Decision(True, "@mesh.allow on refund", "an allow rule matches")
    assert access.decide(ask(f"spiffe://{DOMAIN}/ops/alice")).allowed
    assert not access.decide(ask(spiffe("cart"))).allowed
    assert not access.decide(ask()).allowed
    assert not narrow("checkout").decide(ask(spiffe("c"))).allowed


def test_narrowing_to_nobody_is_a_mistake():
    with pytest.raises(ValueError, match="from nobody: name the callers"):
        narrow([])

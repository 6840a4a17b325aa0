"""Invariants: reading a target twice is reading it once; what a deny rule lets pass no chain of servers reads as a path
of that rule, and what an allow rule lets pass every chain of servers does; time is bounded by the target's length.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshsdk.core.access import Access, Rule
from meshsdk.core.paths import check_path, normal, read
from meshsdk.core.request import Request

PIECES = [
    "/",
    "//",
    ".",
    "..",
    ";",
    ";x=1",
    "\\",
    "%2e",
    "%2E",
    "%2f",
    "%5C",
    "%3b",
    "%61",
    "%41",
    "a",
    "admin",
    "Admin",
]
TARGETS = st.lists(
    st.sampled_from([*PIECES, "%25", "%252e", "%00", "%zz", "%c3%a9", "?", "x", "~", "{"]), max_size=12
).map(lambda pieces: "/" + "".join(pieces))
ANYTHING = st.text(max_size=40) | st.text("/.;%\\?#azAZ09*:@", max_size=30) | TARGETS
RULES = ["/admin", "/admin/*", "/a", "/a/*", "/*", "/", "/a/admin", "/a/admin/*", "/x", "/%C3%A9"]


def dots(path: str) -> str:
    kept: list[str] = []
    *folders, last = path.removeprefix("/").split("/")
    for segment in [*folders, last]:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if last in {".", ".."} and kept else "")


# What servers do to a path, in words of their own and not in those of the code under test.
SERVERS = {
    "decodes": unquote,
    "merges": lambda path: re.sub("/+", "/", path),
    "resolves": dots,
    "strips": lambda path: "/".join(segment.split(";")[0] for segment in path.split("/")),
    "turns": lambda path: path.replace("\\", "/"),
    "trims": lambda path: "/".join(s if set(s) <= {"."} else s.rstrip(".") for s in path.split("/")),
}
CHAINS = st.lists(st.sampled_from(sorted(SERVERS)), max_size=6)


def served(target: str, chain: list[str]) -> str:
    path = target.partition("?")[0]
    for name in chain:
        path = SERVERS[name](path)
    return path


def is_under(path: str, rule: str) -> bool:
    stem = unquote(rule.removesuffix("/*")).rstrip("/")
    return path in {stem or "/", stem + "/"} or (rule.endswith("/*") and path.startswith(stem + "/"))


def passes(action: str, rule: str, target: str) -> bool:
    default = "allow" if action == "deny" else "deny"
    return Access(default, (Rule("r", action, paths=(rule,)),)).decide(request(target)).allowed


def request(target: str) -> Request:
    return Request(None, "mesh.consul", "GET", target, lambda _: ())


@given(ANYTHING)
def test_the_normal_form_of_the_normal_form_is_itself(target):
    form = normal(target)
    assert form is None or (normal(form) == form and read(form).readings == (form,))


@given(ANYTHING)
def test_every_target_is_read_or_said_to_be_unclear(target):
    paths = read(target)
    assert bool(paths.readings) != bool(paths.unclear)
    assert all(path.startswith("/") and path.isascii() and "?" not in path for path in paths.readings)
    assert len(set(paths.readings)) == len(paths.readings)


@given(TARGETS, CHAINS, st.sampled_from(RULES))
@example("/b/../admin/%2e%2e/y", ["resolves", "decodes"], "/admin/*")
@example("/admin.", ["trims"], "/admin")
@example("/x%252fadmin", ["decodes", "decodes", "resolves"], "/admin")
@example("/a/..;x/admin", ["strips", "resolves"], "/admin")
@settings(max_examples=300, deadline=None)
def test_no_servers_see_what_a_deny_rule_is_about_and_let_pass(target, chain, rule):
    if is_under(served(target, chain), rule):
        assert not passes("deny", rule, target)


@given(TARGETS, CHAINS, st.sampled_from(RULES))
@settings(max_examples=300, deadline=None)
def test_what_an_allow_rule_lets_pass_all_servers_read_as_its_path(target, chain, rule):
    """Escaped or not, a letter is the same to all of them (RFC 3986, 6.2.2.2), so the last one decodes."""
    if passes("allow", rule, target):
        assert is_under(served(target, [*chain, "decodes"]), rule)


@given(st.text("/.;%\\?#az09:@", max_size=20), TARGETS, st.sampled_from(RULES))
@example("h\\@", "/admin/who", "/admin/*")
@example("h\\", "/admin", "/admin")
@settings(max_examples=300, deadline=None)
def test_deny_matches_what_pythons_servers_read_in_absolute_form(host, path, rule):
    """gunicorn and Werkzeug take a target apart with `urlsplit`."""
    target = f"http://{host}{path}"
    if is_under(unquote(urlsplit(target).path), rule):
        assert not passes("deny", rule, target)


@given(ANYTHING, st.sampled_from(RULES))
def test_deny_never_matches_less_than_the_path_as_it_was_sent(target, rule):
    if is_under(target.partition("?")[0], rule):
        assert not passes("deny", rule, target)


@pytest.mark.parametrize(
    ("target", "readings"),
    [
        ("/charge?x=/../admin", ("/charge",)),
        ("/", ("/",)),
        ("/%61dm%69n", ("/admin",)),
        ("/v1/users:delete", ("/v1/users:delete",)),
        ("/v1/users%3Adelete", ("/v1/users:delete",)),
        ("/caf%c3%a9/%7bid}", ("/caf%C3%A9/%7Bid%7D",)),
        ("/Admin", ("/Admin",)),
        ("/.well-known/acme", ("/.well-known/acme",)),
        ("/a..b/...", ("/a..b/...",)),
        ("/public/../admin", ("/public/../admin", "/admin")),
        ("/public/%2e%2E/admin", ("/public/../admin", "/admin")),
        ("/a/.", ("/a/.", "/a/")),
        ("/../..", ("/../..", "/")),
        ("//admin", ("//admin", "/", "/admin")),
        ("/a//b", ("/a//b", "/a/b")),
        ("/admin;jsessionid=1/x", ("/admin;jsessionid=1/x", "/admin/x")),
        ("/x%2Fadmin", ("/x%2Fadmin", "/x/admin")),
        ("/x\\admin", ("/x%5Cadmin", "/x/admin")),
        ("/admin.", ("/admin.", "/admin")),
        ("/dns/example.com./a", ("/dns/example.com./a", "/dns/example.com/a")),
        ("http://host:80/admin?x", ("/admin",)),
        ("HTTPS://host", ("/",)),
    ],
)
def test_readings(target, readings):
    assert set(read(target).readings) == set(readings)
    assert read(target).readings[0] == readings[0]
    assert passes("deny", "/nowhere/*", target)
    assert passes("allow", "/*", target)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("/a%00", "control"),
        ("/a%0d%0ab", "control"),
        ("/a%7F", "control"),
        ("/a%", "invalid"),
        ("/a%zz", "invalid"),
        ("/a%2", "invalid"),
        ("/%252e%252e/admin", "doubled"),
        ("/%25%32%65", "doubled"),
        ("/%c0%ae%c0%ae/admin", "UTF-8"),
        ("/%ff", "UTF-8"),
        ("/admin#x", "fragment"),
        ("/ad min", "escaped"),
        ("/café", "escaped"),
        ("/a\tb", "escaped"),
        ("", "no path"),
        ("*", "no path"),
        ("host:443", "no path"),
        ("ftp://host/a", "no path"),
        ("http:///a", "no path"),
        ("admin", "no path"),
        ("http://h\\@/admin", "backslash"),
        ("https://h\\x/admin", "backslash"),
        ("//a" * 400, "characters"),
        ("//x/..;y/%2e%2f%5c/./a./..;/%2e", "ways"),
    ],
)
def test_unclear_targets_match_deny_rules_and_no_allow_rules(target, why):
    assert why in read(target).unclear
    assert normal(target) is None
    assert not passes("deny", "/nowhere", target)
    assert not passes("allow", "/*", target)


def test_where_no_rule_has_a_path_an_unclear_one_is_no_matter():
    assert Access("allow", (Rule("r", "deny", ("guest",)),)).decide(request("/%00")).allowed


@pytest.mark.parametrize("tricks", ["/", "/..;x/", "//a/.;x/%2f..%5c.b.//", "/a./%2f", "%2e/", "/%2e/b;./"])
@pytest.mark.timeout(10)
def test_tricks_are_read_in_bounded_time(tricks):
    for length in (1000, 60_000):
        target = "/" + tricks * (length // len(tricks))
        for _ in range(20):
            read(target)


@given(st.text("/.%2feE*aé ;", max_size=12) | TARGETS)
def test_a_path_a_rule_may_name_is_one_that_a_request_can_have(path):
    if (advice := complaint(path)) is None:
        sent = path.removesuffix("/*") or "/"
        assert not passes("deny", path, sent)
        assert passes("allow", path, sent)
    else:
        assert "write" in advice


def complaint(path: str) -> str | None:
    try:
        check_path(path)
    except ValueError as refused:
        return str(refused)
    return None


@pytest.mark.parametrize(
    ("path", "write"),
    [
        ("/admin/", "write /admin"),
        ("/a//b/*", "write /a/b/*"),
        ("/a/../b", "write /b"),
        ("//", "write /"),
        ("/..", "write /"),
        ("/../*", "write /*"),
        ("/café/*", "write /caf%C3%A9/*"),
        ("/a b", "write /a%20b"),
        ("/a*", "as in /admin/*"),
        ("admin", "write one such as /charge"),
        ("/%zz", "write one such as /charge"),
        ("/a?b", "write"),
    ],
)
def test_what_to_write_instead(path, write):
    with pytest.raises(ValueError, match=re.escape(write)):
        check_path(path)
    advice = re.search(r"write (/\S*)$", write)
    if advice:
        check_path(advice[1])

"""`meshsdk intention …`: written as Consul has it, listed in the order that decides, on both APIs of Consul."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(params=["dev_agent", "real_consul"])
def server(request, monkeypatch):
    """A server that the environment names."""
    found = request.getfixturevalue(request.param)
    monkeypatch.setenv("CONSUL_HTTP_ADDR", found.url)
    return found


def listed(run, destination):
    return [row for row in run("intention", "list", "--json").json if row["destination"] == destination]


def test_write_list_delete(run, server):
    ran = run("intention", "allow", "web", "cli-pay", "--description", "orders pay")
    assert (ran.code, ran.out, ran.err) == (0, "", "web -> cli-pay: allow\n")
    assert run("intention", "deny", "*", "cli-pay").code == 0
    rows = listed(run, "cli-pay")
    assert [(row["source"], row["decides"], row["precedence"]) for row in rows] == [
        ("web", "allow", 9),
        ("*", "deny", 8),
    ]
    assert rows[0]["description"] == "orders pay"
    table = run("intention", "list").out
    assert table.splitlines()[0].split() == ["intention", "decides", "precedence", "description"]
    assert "web -> cli-pay" in table

    ran = run("intention", "deny", "web", "cli-pay")
    assert ran.err == "web -> cli-pay: deny\n  in place of: allow\n"
    assert listed(run, "cli-pay")[0]["decides"] == "deny"

    for source in ("web", "*"):
        assert run("intention", "delete", source, "cli-pay").code == 0
    ran = run("intention", "delete", "web", "cli-pay")
    assert (ran.code, "there is no intention web -> cli-pay" in ran.err) == (1, True)
    assert listed(run, "cli-pay") == []


def test_rules_for_some_calls(run, agent):
    ran = run("intention", "deny", "web", "pay", "--path", "/admin/*", "--method", "post", "--method", "put")
    assert (ran.code, ran.err) == (0, "web -> pay: deny POST PUT /admin/*\n")
    ran = run(
        "intention", "allow", "web", "pay", "--path", "/v1/pay", "--header", "x-a", "--header", "x-b=c", "--append"
    )
    assert "deny POST PUT /admin/*; allow /v1/pay with x-a with x-b exact c" in ran.err
    (row,) = listed(run, "pay")
    assert (row["decides"], row["note"]) == (
        "2 rules",
        ["deny POST PUT /admin/*", "allow /v1/pay with x-a with x-b exact c"],
    )
    assert "web -> pay: deny POST PUT /admin/*" in run("intention", "list").out

    ran = run("intention", "allow", "web", "pay", "--method", "GET")
    assert "in place of: deny POST PUT /admin/*" in ran.err
    assert listed(run, "pay")[0]["note"] == ["allow GET"]
    assert run("intention", "allow", "web", "pay").code == 0
    ran = run("intention", "deny", "web", "pay", "--path", "/x", "--append")
    assert (ran.code, "has no rules to add to, it says allow" in ran.err) == (2, True)
    assert listed(run, "pay")[0]["decides"] == "allow"


def test_rules_need_consul_1_9(run, real_consul):
    ran = run("intention", "deny", "web", "cli-old", "--path", "/admin/*", CONSUL_HTTP_ADDR=real_consul.url)
    assert (ran.code, "older than 1.9" in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a b", "pay"), "service name 'a b'"),
        (("web", "pay/x"), "service name 'pay/x'"),
        (("web", "pay", "--path", "admin"), "write '/v1/pay' for one path"),
        (("web", "pay", "--path", "/a*"), "write '/v1/pay' for one path"),
        (("web", "pay", "--path", "/*/b"), "write '/v1/pay' for one path"),
        (("web", "pay", "--header", "=x"), "write NAME for a header"),
        (("web", "pay", "--header", "x="), "write NAME for a header"),
        (("web", "pay", "--append"), "--append adds a rule for some calls"),
        (("web",), "DESTINATION"),
    ],
)
def test_what_cannot_be_written(run, agent, arguments, words):
    ran = run("intention", "allow", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert run("intention", "list", "--json").json == []


def test_what_this_mesh_does_not_read_is_told(run, agent, monkeypatch):
    from meshsdk_registry.agent import connect_views

    plain = connect_views.intention
    strange = {"SourcePeer": "east", "JWT": {"Providers": []}}
    monkeypatch.setattr(connect_views, "intention", lambda one: {**plain(one), **strange})
    assert run("intention", "allow", "web", "pay").code == 0
    (row,) = json.loads(run("intention", "list", "--json").out)
    assert row["note"] == [
        "of peer 'east': says nothing about services of this datacenter's own",
        "only with JWT, which this mesh does not read",
    ]


def test_none(run, agent):
    ran = run("intention", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "its ACL default decides every call" in ran.err

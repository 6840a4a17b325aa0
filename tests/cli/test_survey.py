"""`services`, `endpoints` and `check`: every mistake that stands in Consul is told, with what to do."""

from __future__ import annotations

import pytest

BROKEN = b"version: 1\ntimeouts: {requst: 1s}\nretries: {attempts: 0}\n"


@pytest.fixture
def shop(register, consul):
    """A mesh with one of each mistake."""
    register(Name="payments", ID="portless", Address="10.0.0.1", Port=0)
    register(Name="payments", ID="resting", Address="10.0.0.2", Port=80)
    register(Name="payments", ID="well", Address="10.0.0.3", Port=80, Check={"CheckID": "service:well", "TTL": "60s"})
    register(Name="payments", ID="ill", Address="::1", Port=80, Check={"CheckID": "service:ill", "TTL": "60s"})
    register(Name="payments", ID="nowhere", Address="0.0.0.0", Port=80)
    register(Name="my svc", ID="spaced", Address="10.0.0.5", Port=80)
    consul(lambda client: client.maintenance("resting", enable=True, reason="disk swap"))
    consul(lambda client: client.pass_ttl("service:well", "policies: orders@7, payments@3+_mesh@2"))
    consul(lambda client: client.fail_ttl("service:ill", "no database\n\x1b[31mred"))
    consul(lambda client: client.put("mesh/policy/payments", BROKEN))
    consul(lambda client: client.put("mesh/policy/_mesh", b"\xff\xfe"))
    consul(lambda client: client.put("mesh/policy/a b", b"version: 1"))
    consul(lambda client: client.put("mesh/policy/orders", b"version: 1"))


def test_services(run, shop):
    ran = run("services", "--json")
    assert ran.code == 0
    rows = {row["service"]: row for row in ran.json}
    payments, problems = rows["payments"], "\n".join(rows["payments"]["problem"])
    assert (payments["passing"], payments["policy"]) == (1, "rejected")
    assert payments["instances"] == 5
    assert payments["obeyed"] == ["payments@3+_mesh@2 by 1"]
    for expected in (
        "timeouts.requst: unknown key; did you mean request? (line 2)",
        "retries.attempts: 0: write 1 or more (line 3)",
        "portless on dev: port 0; register the one it listens on",
        "resting on dev: in maintenance: disk swap",
        "ill on dev: critical: no database",
        "nowhere on dev: address '0.0.0.0' is where a server listens",
    ):
        assert expected in problems
    assert "not text in UTF-8" in rows["_mesh"]["problem"][0]
    assert rows["a b"]["policy"] == "unread"
    assert "write letters, digits and dashes, such as 'my-svc'" in rows["my svc"]["problem"][0]
    assert rows["orders"]["policy"].startswith("orders@")

    table = run("services").out
    assert "\x1b" not in table
    assert "payments: resting on dev: in maintenance: disk swap" in table


def test_endpoints(run, shop):
    ran = run("endpoints", "payments", "--json")
    rows = {row["instance"]: row for row in ran.json}
    assert (rows["well"]["used"], rows["well"]["obeys"]) == ("yes", ["orders@7", "payments@3+_mesh@2"])
    assert (rows["ill"]["used"], rows["ill"]["address"]) == ("in panic only", "[::1]:80")
    assert (rows["resting"]["used"], rows["resting"]["note"]) == ("no", ["in maintenance: disk swap"])
    assert rows["portless"]["note"] == ["port 0; register the one it listens on, 1 to 65535"]
    assert "\x1b" not in run("endpoints", "payments").out

    ran = run("endpoints", "nobody")
    assert (ran.code, "`meshsdk services` lists what it knows" in ran.err) == (1, True)


def test_check(run, shop):
    ran = run("check", "--json")
    assert ran.code == 1
    found = {(each["subject"], each["state"]): each for each in ran.json}
    assert found["consul", "ok"]["seen"].startswith("version ")
    assert found["kv", "ok"]
    assert "did you mean request?" in found["policy payments", "fail"]["seen"]
    assert "retries.attempts" in found["policy payments", "fail"]["seen"]
    assert found["policy _mesh", "fail"]["remedy"] == "correct and apply it; `meshsdk policy get _mesh` prints it"
    assert found["policy a b", "warn"]["remedy"] == "delete the key 'mesh/policy/a b'"
    assert "they obey orders@7, payments@3+_mesh@2" in found["service payments", "ok"]["seen"]
    assert found["service my svc", "warn"]
    seen = {each["seen"] for each in ran.json}
    assert "resting on dev: in maintenance: disk swap" in seen
    assert run("check").code == 1


def test_a_mesh_with_nothing_wrong(run, agent, register):
    assert run("services").err == "Consul knows no service yet\n"
    assert run("services", "--json").json == []
    register(Name="payments", ID="p1", Address="10.0.0.1", Port=80)
    ran = run("check")
    assert ran.code == 0
    assert "service payments: 1 of 1 instances get calls" in ran.out
    assert "fail" not in ran.out


def test_what_takes_clear_text_only_under_a_strict_policy(run, consul, register):
    register(Name="payments", ID="clear", Address="10.0.0.1", Port=80)
    register(Name="payments", ID="well", Address="10.0.0.2", Port=80, Meta={"mesh-tls": "permissive"})
    register(Name="legacy", ID="old", Address="10.0.0.3", Port=80)
    consul(lambda client: client.put("mesh/policy/_mesh", b"version: 1\ntls: {mode: strict}\n"))
    consul(lambda client: client.put("mesh/policy/legacy", b"version: 1\ntls: {mode: permissive}\n"))

    rows = {row["instance"]: row for row in run("endpoints", "payments", "--json").json}
    assert {name: row["used"] for name, row in rows.items()} == {"clear": "no", "well": "yes"}
    assert "clear text only, and tls.mode is strict" in rows["clear"]["note"][0]
    assert rows["well"]["note"] == []
    (passing,) = [row["passing"] for row in run("services", "--json").json if row["service"] == "payments"]
    assert passing == 1

    ran = run("check", "--json")
    assert ran.code == 1
    (failed,) = [each for each in ran.json if each["state"] == "fail"]
    assert (failed["subject"], failed["seen"]) == (
        "service payments",
        "clear on dev: registered as taking clear text only, and tls.mode is strict in its policy: "
        "every call is refused",
    )
    assert "from meshsdk.server.gunicorn import *" in failed["remedy"]
    assert "service legacy: 1 of 1 instances get calls" in run("check").out


def test_an_unsafe_state_folder_is_a_warning(run, agent, tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    ran = run("check", MESH_STATE_DIR=str(folder))
    assert ran.code == 0
    assert "writable by others" in ran.out
    assert "MESH_STATE_DIR" in ran.out


def test_the_same_against_a_real_consul(run, real_consul):
    """Real Consul has services and nodes of its own; nothing of that may trouble the commands."""
    env = {"CONSUL_HTTP_ADDR": real_consul.url}
    assert run("services", "--json", **env).code == 0
    subjects = {each["subject"]: each["state"] for each in run("check", "--json", **env).json}
    assert (subjects["consul"], subjects["leader"], subjects["kv"]) == ("ok", "ok", "ok")

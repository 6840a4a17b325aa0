"""`meshsdk ca …` and the lifetimes of `meshsdk dev`, on the dev agent and a real Consul."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from meshsdk_registry import Consul
from meshsdk_registry.agent import running_agent
from tests.real_consul import RealConsul, free_ports


@pytest.fixture(params=["dev_agent", "own_consul"])
def server(request, monkeypatch):
    """A server that no other test uses, which the environment names."""
    found = request.getfixturevalue(request.param)
    monkeypatch.setenv("CONSUL_HTTP_ADDR", found.url)
    return found


def test_show_and_rotate(run, server):
    before = run("ca", "show", "--json")
    assert (before.code, before.err) == (0, "")
    (root,) = before.json["roots"]
    assert (root["id"], root["state"], root["active"]) == (before.json["active"], "signs", True)
    assert before.json["trust_domain"].endswith(".consul")
    assert root["days_left"] > 3000
    assert root["pem"].startswith("-----BEGIN CERTIFICATE-----")

    rotated = run("ca", "rotate")
    assert (rotated.code, "rotated" in rotated.err) == (0, True)
    assert before.json["active"][:23] in rotated.out

    after = run("ca", "show", "--json").json
    assert {one["id"]: one["state"] for one in after["roots"]} == {
        after["active"]: "signs", before.json["active"]: "trusted",
    }  # fmt: skip
    assert after["trust_domain"] == before.json["trust_domain"]
    assert len(after["roots"][0]["intermediates"]) == 1
    lines = run("ca", "show").out.splitlines()
    assert lines[0] == f"trust domain {after['trust_domain']}"
    assert lines[1].split() == ["root", "state", "expires", "name"]
    shown = [line.split()[:2] for line in lines[2:]]
    assert shown == [[after["active"][:23], "signs"], [before.json["active"][:23], "trusted"]]


def test_no_private_key_is_ever_printed(run, server):
    assert run("ca", "rotate", "--json").code == 0
    for command in (("ca", "show"), ("ca", "show", "--json"), ("ca", "rotate"), ("ca", "rotate", "--json")):
        ran = run(*command)
        assert "PRIVATE" not in ran.out + ran.err


def test_a_root_that_has_run_out(run, monkeypatch):
    from meshsdk.cli import ca

    with running_agent(root_ttl=1) as agent:
        monkeypatch.setenv("CONSUL_HTTP_ADDR", agent.url)
        assert run("ca", "show").code == 0

        class Later(datetime):
            @classmethod
            def now(cls, zone):
                return datetime.now(zone) + timedelta(seconds=60)

        monkeypatch.setattr(ca, "datetime", Later)
        ran = run("ca", "show")
        assert (ran.code, "expired" in ran.out) == (1, True)
        assert "`meshsdk ca rotate` makes a new one" in ran.err


def test_without_connect_the_remedy_is_said(run, monkeypatch):
    with RealConsul("-hcl", "connect { enabled = false }") as server:
        monkeypatch.setenv("CONSUL_HTTP_ADDR", server.url)
        for command in ("show", "rotate"):
            ran = run("ca", command)
            assert (ran.code, ran.out) == (1, "")
            assert "connect { enabled = true }" in ran.err
        for setting, state, code in (("auto", "warn", 0), ("consul", "fail", 1), ("off", "ok", 0)):
            ran = run("check", "--json", MESH_IDENTITY=setting)
            (found,) = [each for each in ran.json if each["subject"] == "identity"]
            assert (found["state"], ran.code) == (state, code)
            assert ("connect { enabled = true }" in found["seen"]) == (setting != "off")


def test_check_reads_the_ca(run, server):
    (found,) = [each for each in run("check", "--json").json if each["subject"] == "identity"]
    assert (found["state"], found["remedy"]) == ("ok", "")
    assert run("ca", "show", "--json").json["trust_domain"] in found["seen"]


def test_without_consul(run, monkeypatch):
    monkeypatch.setenv("CONSUL_HTTP_ADDR", f"127.0.0.1:{free_ports(1)[0]}")
    for command in (("ca", "show"), ("ca", "rotate"), ("intention", "list"), ("intention", "allow", "a", "b")):
        assert run(*command).code == 3


def test_dev_with_certificates_of_seconds():
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "meshsdk.cli", "dev", "--port", str(port), "--leaf-ttl", "5s", "--root-ttl", "1h"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    assert "dev agent at" in child.stderr.readline()
    leaf, root = asyncio.run(issued(f"http://127.0.0.1:{port}"))
    assert 5 <= (leaf.valid_before - leaf.valid_after).total_seconds() <= 6
    assert root.not_after - datetime.now(UTC) < timedelta(hours=1, seconds=2)
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 0
    child.stderr.close()


async def issued(url):
    async with Consul(url) as consul:
        return (await consul.leaf("web")).value, (await consul.roots()).value.roots[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--leaf-ttl", "5"), "--leaf-ttl '5': not a duration"),
        (("--leaf-ttl", "0"), "leaf lifetime 0: write 1 second or more"),
        (("--root-ttl", "10ms"), "root lifetime 0.01: write 1 second or more"),
        (("--consul", "--leaf-ttl", "5s"), "leave --consul out"),
    ],
)
def test_lifetimes_that_cannot_be(run, options, words):
    done = subprocess.run(
        [sys.executable, "-m", "meshsdk.cli", "dev", "--port", "0", *options],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())

"""Consul absent, refusing, failing, talking nonsense or silent: bounded, a documented exit code, and a remedy."""

from __future__ import annotations

import threading
import time

import pytest

from meshsdk.cli import consul as cli_consul
from meshsdk_registry import Consul
from tests.cli.conftest import reply, scripted
from tests.real_consul import free_ports

COMMANDS = [("services",), ("endpoints", "payments"), ("check",), ("policy", "get", "payments")]


@pytest.mark.parametrize("command", COMMANDS)
def test_nobody_there(run, command):
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    ran = run(*command, CONSUL_HTTP_ADDR=url)
    assert ran.code == 3
    said = ran.out + ran.err
    assert url in said
    assert "`meshsdk dev` starts one" in said


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (403, "Permission denied", "registry/README.md"),
        (500, "internal disaster", "Consul's own log says more"),
        (200, "<html>hello</html>", "Does another program or a proxy listen there?"),
        (200, '{"Config": 7}', "is missing"),
    ],
)
def test_answers_that_do_not_help(run, command, status, text, said):
    with scripted(lambda handler: reply(handler, status, text)) as url:
        ran = run(*command, CONSUL_HTTP_ADDR=url)
    assert ran.code == 1
    if text[0] != "{":  # which key of an object is missing depends on the question
        assert said in ran.out + ran.err


def test_check_goes_on_where_one_permission_lacks(run, agent):
    """A token without agent:read, which a process does not need."""

    def answer(handler) -> None:
        if handler.path.startswith("/v1/agent/self"):
            reply(handler, 403, "Permission denied")
        elif handler.path.startswith("/v1/status/leader"):
            reply(handler, 200, '"10.0.0.1:8300"')
        elif handler.command == "PUT":
            reply(handler, 403, "Permission denied")
        elif handler.path.startswith("/v1/kv"):
            reply(handler, 200, "[]")
        else:
            reply(handler, 200, "{}")

    with scripted(answer) as url:
        ran = run("check", "--json", CONSUL_HTTP_ADDR=url)
    states = {each["subject"]: each["state"] for each in ran.json}
    assert ran.code == 1
    assert states["consul"] == "fail"
    assert (states["leader"], states["kv"], states["policy"], states["services"]) == ("ok", "warn", "ok", "ok")


@pytest.mark.parametrize("command", [("services",), ("check",)])
def test_a_hanging_consul_is_given_up(run, monkeypatch, command):
    """After the client's timeout: 5 s, here shortened."""
    monkeypatch.setattr(cli_consul, "open_consul", lambda settings: Consul(settings.consul_url, timeout=0.3))
    stop = threading.Event()
    with scripted(lambda _: stop.wait(20)) as url:
        began = time.monotonic()
        ran = run(*command, CONSUL_HTTP_ADDR=url)
        took = time.monotonic() - began
        stop.set()
    assert ran.code == 3
    assert took < 3
    assert "no answer in time" in ran.out + ran.err


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CONSUL_HTTP_ADDR", "ftp://x", "give http://host:8500"),
        ("CONSUL_HTTP_ADDR", "http://x:99999", "write 'http://127.0.0.1:8500'"),
        ("CONSUL_HTTP_ADDR", "http://x/path", "leave out all but scheme, host and port"),
        ("CONSUL_CLIENT_CERT", "/x.pem", "give both PEM files or neither"),
        ("MESH_TTL", "soon", "give seconds"),
    ],
)
def test_wrong_settings(run, name, value, said):
    for command in ("services", "check"):
        ran = run(command, **{name: value})
        assert ran.code == 2
        assert said in ran.out + ran.err


def test_token_and_token_file_exclude_each_other(run, tmp_path):
    (tmp_path / "token").write_text("t")
    ran = run("services", CONSUL_HTTP_TOKEN="a", CONSUL_HTTP_TOKEN_FILE=str(tmp_path / "token"))
    assert (ran.code, "leave one out" in ran.err) == (2, True)


def test_a_token_file_that_is_not_there(run, agent):
    ran = run("services", CONSUL_HTTP_TOKEN_FILE="/nowhere/token")
    assert (ran.code, "write the ACL token into it" in ran.err) == (1, True)

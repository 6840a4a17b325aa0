"""The command line as a process: streams, terminals, signals, and installations that lack an extra."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from meshsdk.cli import main
from tests.real_consul import free_ports

MESHSDK = [sys.executable, "-m", "meshsdk.cli"]
STYLE = re.compile(r"\x1b\[[0-9;]*m")


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}}
    return kept | {"TERM": "xterm-256color"} | more


def meshsdk(*args: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*MESHSDK, *args],
        env=environment(**env),
        capture_output=True,
        timeout=20,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def on_a_terminal(*args: str, **env: str) -> str:
    """What a person would see."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen([*MESHSDK, *args], env=environment(**env), stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 4096):
            text += piece
    except OSError:  # Linux tells the end of a terminal so
        pass
    os.close(ours)
    child.wait(20)
    return text.decode()


def test_ctrl_c_while_the_command_line_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "meshsdk.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "meshsdk.cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130


def test_style_only_on_a_terminal_and_never_with_no_color(agent):
    env = {"CONSUL_HTTP_ADDR": agent.url}
    assert STYLE.search(on_a_terminal("check", **env))
    assert not STYLE.search(on_a_terminal("check", NO_COLOR="1", **env))
    done = meshsdk("check", **env)
    assert done.returncode == 0
    assert not STYLE.search((done.stdout + done.stderr).decode())


def test_a_narrow_terminal_and_one_without_utf8(agent, register):
    register(Name="payments-with-a-long-name", ID="payments-with-a-long-name-1", Address="10.0.0.1", Port=80)
    shown = on_a_terminal("services", CONSUL_HTTP_ADDR=agent.url, COLUMNS="30")
    assert max(len(line) for line in STYLE.sub("", shown).splitlines()) <= 30
    assert "long" in shown  # folded, not cut
    done = meshsdk("endpoints", "payments-with-a-long-name", CONSUL_HTTP_ADDR=agent.url, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr


def test_arrows_do_not_break_a_terminal_without_utf8(agent, tmp_path):
    (tmp_path / "payments.yaml").write_text("version: 1\ntimeouts: {request: 3s}\n")
    path = str(tmp_path / "payments.yaml")
    done = meshsdk("policy", "apply", path, CONSUL_HTTP_ADDR=agent.url, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, b"  timeouts.request: 15s ? 3s\n  timeouts.attempt: 5s ? 3s\n")


@pytest.mark.parametrize("command", [("services",), ("policy", "schema")])
def test_a_reader_that_is_gone_is_no_error(agent, register, command):
    register(Name="payments", ID="p1", Address="10.0.0.1", Port=80)
    ours, theirs = os.pipe()
    os.close(ours)
    env = environment(CONSUL_HTTP_ADDR=agent.url)
    done = subprocess.run([*MESHSDK, *command], env=env, stdout=theirs, stderr=subprocess.PIPE, timeout=20, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, b"")


def test_every_command_says_its_exit_codes():
    for command in (
        ("demo",),
        ("dev",),
        ("services",),
        ("endpoints",),
        ("check",),
        ("sidecar",),
        ("gateway",),
        *(("ca", name) for name in ("show", "rotate")),
        *(("intention", name) for name in ("allow", "deny", "list", "delete")),
        *(("policy", name) for name in ("validate", "apply", "get", "diff", "delete", "schema")),
    ):
        text = _help(*command)
        assert "Exit codes: 0 " in text, command


def _help(*command: str) -> str:
    from typer.testing import CliRunner

    from meshsdk.cli.app import app

    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "100"})
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        (("dev",), "starlette", "server"),
        (("demo",), "flask", "examples"),
    ],
)
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(command, module, extra):
    """A module that is None in `sys.modules` cannot be imported nor found, as in an environment without it."""
    program = f"import sys\nsys.modules[{module!r}] = None\nfrom meshsdk.cli import main\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"pip install 'meshsdk[{extra}]'" in done.stderr
    assert module in done.stderr
    assert "Traceback" not in done.stderr


def test_dev_runs_until_it_is_told_to_stop():
    (port,) = free_ports(1)
    child = subprocess.Popen(
        [*MESHSDK, "dev", "--port", str(port)], env=environment(), stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    first = child.stderr.readline()
    assert f"dev agent at http://127.0.0.1:{port}" in first
    assert f"export CONSUL_HTTP_ADDR=http://127.0.0.1:{port}" in child.stderr.readline()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status/leader", timeout=5) as answer:
        assert answer.status == 200
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 0
    assert "Traceback" not in child.stderr.read()
    child.stderr.close()


def test_dev_on_a_taken_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = meshsdk("dev", "--port", str(port))
    assert done.returncode == 1
    assert f"cannot listen at http://127.0.0.1:{port}: Address already in use\n" in done.stderr.decode()
    assert "another --port" in done.stderr.decode()


def test_dev_with_a_real_consul(real_consul):
    from tests.real_consul import BINARY

    done = meshsdk("dev", "--consul", PATH="/nowhere")
    assert (done.returncode, b"no `consul` on the PATH" in done.stderr) == (2, True)
    # Another one holds its ports: the second ends by itself, and that is said.
    port = real_consul.url.rpartition(":")[2]
    done = meshsdk("dev", "--consul", "--port", port, PATH=str(BINARY.parent))
    assert done.returncode == 1
    assert b"consul ended with" in done.stderr

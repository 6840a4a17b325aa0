"""What systemd is told, heard at a socket as its own is."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from meshsdk_sidecar import supervisor
from tests.sidecar.conftest import end, wait
from tests.sidecar.restarts import running, successor


@pytest.fixture
def heard(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def test_lines_are_one_datagram(heard: socket.socket) -> None:
    assert supervisor.tell("READY=1", supervisor.MAINPID.format(7))
    assert heard.recv(1000) == b"READY=1\nMAINPID=7"


def test_abstract_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")  # Linux chooses an abstract name
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + sock.getsockname()[1:].decode())
        assert supervisor.tell("READY=1")
        assert sock.recv(1000) == b"READY=1"


def test_nobody_is_told_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not supervisor.tell("READY=1")


def test_what_could_not_be_told_is_logged(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    assert not supervisor.tell("READY=1")
    assert "systemd was not told READY=1" in caplog.text


def _service(app: socket.socket) -> str:
    return f"name: legacy, port: {app.getsockname()[1]}"


def test_a_sidecar_tells_that_it_is_ready_who_replaces_it_and_that_it_ends(tmp_path, dev_agent, heard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as app, running(tmp_path, dev_agent.url, _service(app)) as sidecar:
        assert heard.recv(1000) == b"READY=1"
        sidecar.until_ready()
        with successor(tmp_path, dev_agent.url) as (process, log):
            told = {heard.recv(1000), heard.recv(1000)}
            assert told == {b"MAINPID=%d\nREADY=1" % process.pid, b"READY=1"}
            assert sidecar.process.wait(15) == 0  # of which nothing is told: the unit goes on
            sidecar.process = process
            wait(lambda: "ready in place of" in log.read_text(), log)
            assert end(sidecar) == 0
            assert heard.recv(1000) == b"STOPPING=1"

"""The life of a process under uvicorn, in real processes against the dev agent."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]


def uvicorn(start: Start, port: int, *more: str, **env: str) -> Any:
    return start("uvicorn", "asgi_app:app", "--port", str(port), "--log-level", "warning", *more, port=port, **env)


def only(consul: Any) -> Any:
    """The status of the one instance there is, None without any."""
    found = list(consul.instances("shop").values())
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize("consul", ["dev_agent", "real_consul"], indirect=True)
def test_life_of_one_process(start: Start, consul: Any, port: int, eventually: Any, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    program = uvicorn(start, port, TEST_HOOK_FILE=str(hook), MESH_ZONE="z1", MESH_VERSION="7")
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    entry = consul.get("health/service/shop")[0]
    assert entry["Service"]["ID"] == f"shop-{socket.gethostname()}-{port}"
    assert entry["Service"]["Meta"] == {"mesh": "1", "protocol": "http", "zone": "z1", "version": "7"}
    assert "policies: payments@41" in [check["Output"] for check in entry["Checks"]]
    assert program.text("/-/mesh/ready") == (200, "ready\n")
    program.get("/who")
    status, metrics = program.text("/-/mesh/metrics")
    assert status == 200
    assert 'http_route="/who"' in metrics

    slow: list[Any] = []
    thread = threading.Thread(target=lambda: slow.append(program.get("/slow/0.9")))
    thread.start()
    time.sleep(0.2)
    program.signal(signal.SIGTERM)
    began = time.monotonic()
    eventually(lambda: only(consul) == "maintenance")
    assert program.text("/-/mesh/ready") == (503, "draining\n")
    assert program.get("/who")["pid"] == program.process.pid
    eventually(lambda: only(consul) is None)
    assert time.monotonic() - began >= 0.35
    thread.join()
    assert slow[0]["pid"] == program.process.pid
    program.wait()
    assert hook.read_text() == "ran"


def asked(kept: socket.socket) -> bytes:
    """One exchange on a kept connection, in small letters."""
    kept.sendall(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n")
    reply = b""
    while b'"pid":' not in reply:
        reply += kept.recv(4096)
    return reply.lower()


def test_connections_end_with_their_reply_while_draining(start: Start, consul: Any, port: int, eventually: Any) -> None:
    program = uvicorn(start, port, MESH_DRAIN_WAIT="1")
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    with socket.create_connection(("127.0.0.1", port)) as kept:
        assert b"connection: close" not in asked(kept)
        program.signal(signal.SIGTERM)
        eventually(lambda: only(consul) == "maintenance")
        assert b"connection: close" in asked(kept)
    program.wait()


def test_second_signal_goes_through_at_once(start: Start, consul: Any, port: int, eventually: Any) -> None:
    program = uvicorn(start, port, MESH_DRAIN_WAIT="20")
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    program.signal(signal.SIGINT)
    eventually(lambda: only(consul) == "maintenance")
    began = time.monotonic()
    program.signal(signal.SIGINT)
    program.wait()
    assert time.monotonic() - began < 5
    assert only(consul) is None


def test_signal_while_consul_is_gone(start: Start, consul: Any, dev_agent: Any, port: int, eventually: Any) -> None:
    program = uvicorn(start, port)
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    dev_agent.stop()
    began = time.monotonic()
    program.signal(signal.SIGTERM)
    program.wait()
    assert time.monotonic() - began < 0.4 + 1 + 1.5  # drain_wait, Consul's share, uvicorn's own end
    assert "was not deregistered" in program.log


def test_end_without_a_signal(start: Start, consul: Any, port: int, eventually: Any) -> None:
    program = uvicorn(start, port, "--limit-max-requests", "30")
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    for _ in range(40):
        try:
            program.get("/who")
        except OSError:
            break
    program.wait()
    assert only(consul) is None


def test_without_lifespan(start: Start, consul: Any, port: int, eventually: Any) -> None:
    program = uvicorn(start, port, "--lifespan", "off")
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    program.signal(signal.SIGTERM)
    eventually(lambda: only(consul) == "maintenance")
    program.wait()
    assert only(consul) is None


def test_wrong_port_is_named(start: Start, consul: Any, port: int, eventually: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        wrong = other.getsockname()[1]
    program = uvicorn(start, port, MESH_PORT=str(wrong))
    eventually(lambda: "is not registered: no request has reached this process" in program.log, 20)
    assert f"127.0.0.1:{wrong}: nothing listens" in program.log
    advice = "give Mesh(port=...) or MESH_PORT the port that the server listens at"
    assert advice in program.log
    eventually(lambda: program.get("/who"))
    eventually(lambda: f"requests reach this process, but not on port {wrong}" in program.log)
    assert program.log.count(advice) == 2
    assert only(consul) is None


def test_workers_are_one_instance(start: Start, consul: Any, port: int, eventually: Any) -> None:
    workers = 3
    program = uvicorn(start, port, "--workers", str(workers))
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    pids = set()

    def all_asked() -> bool:
        pids.add(program.get("/who")["pid"])
        return len(pids) == workers

    eventually(all_asked)
    asked = 0

    def all_count() -> bool:
        text = program.text("/-/mesh/metrics")[1]
        counted = [line for line in text.splitlines() if line.startswith("http_server_request_duration_seconds_count")]
        return sum(float(line.rpartition(" ")[2]) for line in counted if '/who"' in line) >= asked

    asked = 20
    for _ in range(asked):
        program.get("/who")
    eventually(all_count)
    program.signal(signal.SIGTERM)
    eventually(lambda: only(consul) == "maintenance", about=lambda: program.log)
    program.wait()
    assert only(consul) is None

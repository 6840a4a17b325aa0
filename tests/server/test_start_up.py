"""The first request of a process that has just started, in real servers: the policy judges it, not the defaults."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshsdk import Mesh

GUNICORN = ["gunicorn", "identified_wsgi:app", "--log-level", "warning", "--no-control-socket"]
UVICORN = ["uvicorn", "identified_asgi:app", "--log-level", "warning"]
SERVERS = {
    "uvicorn": UVICORN,
    "uvicorn-no-lifespan": [*UVICORN, "--lifespan", "off"],
    "gunicorn": GUNICORN,
    "gunicorn-threads-preload": [*GUNICORN, "--threads", "4", "--preload"],
    "werkzeug": ["identified_wsgi"],
}
WARNING = "the built-in defaults are in force"


@pytest.fixture
def serve(start: Callable[..., Any], port: int) -> Callable[..., Any]:
    def serving(kind: str, **env: str) -> Any:
        command = list(SERVERS[kind])
        command += ["--bind", f"127.0.0.1:{port}"] if command[0] == "gunicorn" else []
        command += ["--port", str(port)] if command[0] == "uvicorn" else []
        # Long: on a busy machine the agent in this process may take more than the default of 2 s to answer.
        return start(*command, port=port, **{"MESH_ADDRESS": "127.0.0.1", "MESH_FIRST_WAIT": "15", **env})

    return serving


@pytest.fixture
def silent() -> Iterator[str]:
    """Where a Consul seems to be that never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def put(consul: Any, path: str, body: bytes) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{consul.url}/v1/{path}", body, method="PUT"), timeout=5).close()


def first_answer(program: Any, path: str = "/who") -> tuple[int, str]:
    """What the very first request that finds an open port is told."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(program.url + path, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()
        except OSError:
            assert time.monotonic() < deadline, program.log
            assert program.process.poll() is None, program.log
            time.sleep(0.002)


@pytest.mark.parametrize("kind", SERVERS)
def test_a_strict_service_refuses_clear_text_from_the_first_request_on(
    serve: Callable[..., Any], consul: Any, kind: str
) -> None:
    put(consul, "kv/mesh/policy/shop", b"version: 1\ntls: {mode: strict}\n")
    program = serve(kind)
    status, body = first_answer(program)
    assert (status, "takes mutual TLS only" in body) == (403, True), (body, program.log)
    assert WARNING not in program.log


@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn"])
def test_intentions_hold_from_the_first_request_on(serve: Callable[..., Any], consul: Any, kind: str) -> None:
    body = {"SourceName": "*", "DestinationName": "shop", "SourceType": "consul", "Action": "deny"}
    request = urllib.request.Request(f"{consul.url}/v1/connect/intentions", json.dumps(body).encode(), method="POST")
    urllib.request.urlopen(request, timeout=5).close()
    assert first_answer(serve(kind))[0] == 403


def until_open(program: Any) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", program.port), 5).close()
        except OSError:
            assert time.monotonic() < deadline, program.log
            time.sleep(0.002)
        else:
            return


@pytest.mark.parametrize("kind", ["uvicorn-no-lifespan", "gunicorn-threads-preload"])
def test_a_silent_consul_delays_the_first_request_by_no_more_than_the_setting(
    serve: Callable[..., Any], silent: str, kind: str
) -> None:
    """And only once in a process, which the log tells once."""
    program = serve(kind, CONSUL_HTTP_ADDR=silent, MESH_FIRST_WAIT="1.5")
    until_open(program)
    began = time.monotonic()
    assert first_answer(program)[0] == 200
    assert time.monotonic() - began < 1.5 + 1.0
    again = time.monotonic()
    assert first_answer(program)[0] == 200
    assert time.monotonic() - again < 1.0
    assert program.log.count(WARNING) == 1, program.log


@pytest.mark.parametrize("away", ["silent", "refusing"])
async def test_a_start_up_without_consul_takes_no_longer_than_the_setting(
    silent: str, port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, away: str
) -> None:
    at_least, at_most = (0.5, 1.5) if away == "silent" else (0.0, 0.5)
    url = silent if away == "silent" else f"http://127.0.0.1:{port}"
    sent: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async with Mesh("shop", consul_url=url, first_wait=0.6, state_dir=tmp_path / "state") as mesh:
        for _ in range(2):
            began = time.monotonic()
            await mesh.asgi(app)({"type": "lifespan"}, receive, send)
            assert at_least <= time.monotonic() - began < at_most
            at_least = 0.0  # once in a process
    assert sent == ["lifespan.startup.complete"] * 2
    assert caplog.text.count(WARNING) == 1


def test_the_last_known_policy_holds_where_consul_is_away(
    serve: Callable[..., Any], consul: Any, dev_agent: Any, tmp_path: Path, eventually: Any
) -> None:
    put(consul, "kv/mesh/policy/shop", b"version: 1\ntls: {mode: strict}\n")
    program = serve("uvicorn")
    assert first_answer(program)[0] == 403
    eventually((tmp_path / "state" / "shop.own.json").exists)
    eventually((tmp_path / "state" / "shop.intentions.json").exists)
    program.end()
    dev_agent.stop()
    program = serve("uvicorn")
    assert first_answer(program)[0] == 403
    assert WARNING not in program.log
    assert "the policy remembered on disk is in force" in program.log

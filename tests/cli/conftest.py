"""The command line as a user runs it, in this process, and against a Consul that answers what a test wants."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from meshsdk.cli.app import app
from meshsdk_registry import Consul


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def agent(dev_agent, monkeypatch, tmp_path):
    """A dev agent that the environment names."""
    monkeypatch.setenv("CONSUL_HTTP_ADDR", dev_agent.url)
    monkeypatch.setenv("MESH_STATE_DIR", str(tmp_path / "state"))
    for name in ("CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE", "MESH_DATACENTER"):
        monkeypatch.delenv(name, raising=False)
    return dev_agent


@pytest.fixture
def run():
    """`run("services", "--json")`; an exception that escapes fails the test."""

    def running(*args: str, **env: str) -> Ran:
        result = CliRunner().invoke(app, args, env=env, catch_exceptions=False)
        assert "Traceback" not in result.stderr
        return Ran(result.exit_code, result.stdout, result.stderr)

    return running


@pytest.fixture
def consul(agent):
    """`consul(lambda c: c.put("k", b"v"))`: do something in the dev agent."""

    def doing(work: Callable[[Consul], Any]) -> Any:
        async def once() -> Any:
            async with Consul(agent.url) as client:
                return await work(client)

        return asyncio.run(once())

    return doing


@pytest.fixture
def register(agent, consul):
    """Register anything, as any program could: the body of `/v1/agent/service/register`."""

    def registering(**body: Any) -> None:
        text = json.dumps(body)
        consul(lambda client: client.raw("PUT", "/v1/agent/service/register", data=text))

    return registering


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a command that hung up before it had the whole answer: it may."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def scripted(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server that answers every request by `answer`; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        do_PUT = do_DELETE = do_GET  # noqa: N815 - the names are http.server's

        def log_message(self, *_: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int, text: str) -> None:
    """Answer with a text."""
    body = text.encode()
    handler.send_response(status)
    handler.send_header("x-consul-index", "1")
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)

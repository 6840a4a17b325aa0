"""The served side as a whole, in this process: phases, pages and ends, with a port that at most accepts connections."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshsdk.config import Settings
from meshsdk.discovery.background import Background
from meshsdk.server.server import Server
from meshsdk.telemetry.metrics import Metrics
from meshsdk.telemetry.tracing import Tracing
from meshsdk_registry import Consul


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background("test")
    yield background
    background.stop()


@pytest.fixture
def make(background: Background, tmp_path: Path) -> Any:
    def making(certificate: Certificate | None = None, **settings: Any) -> Server:
        metrics = Metrics()
        return Server(
            Settings("shop", **{"drain_wait": 0.1, "runtime_dir": tmp_path / "r", **settings}),
            background=background,
            consul=lambda: Consul("http://127.0.0.1:1"),
            policy_versions=dict,
            metrics=metrics,
            sink=metrics.sink,
            tracing=Tracing(),
            identity=certificate,
        )

    return making


class Certificate:
    """An identity that waits for its first answer until the test lets go, and never has anything to show."""

    def __init__(self) -> None:
        self.material: object | None = None
        self.release = threading.Event()

    def server_context(self) -> ssl.SSLContext:
        raise AssertionError("there is no certificate")

    def wait_answer(self, timeout: float) -> None:
        raise AssertionError("nobody asks from a thread here")

    async def await_answer(self, seconds: float) -> None:
        assert await asyncio.to_thread(self.release.wait, 10)


@asynccontextmanager
async def accepting(port: int) -> AsyncIterator[None]:
    """Something that accepts connections to the port, and hangs up."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", port):
        yield


async def ready_page(http: httpx.AsyncClient, status: int) -> str:
    """What the page says once it has this status."""
    async with asyncio.timeout(10):
        while (page := await http.get("/-/mesh/ready")).status_code != status:  # noqa: ASYNC110  # another process or thread decides
            await asyncio.sleep(0.01)
    return page.text


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


class Life:
    """A server that runs an application's lifespan and nothing else."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.sent: list[str] = []

    async def run(self, during: Any = None) -> None:
        messages = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict[str, str]:
            message = next(messages)
            if message == "lifespan.shutdown" and during is not None:
                await during()
            return {"type": message}

        async def send(message: Any) -> None:
            self.sent.append(message["type"])

        await self.application({"type": "lifespan"}, receive, send)


def client(application: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test")


async def test_phases_and_pages(make: Any, port: int) -> None:
    server = make(port=port)
    application = server.asgi(app)

    async def during() -> None:
        async with client(application) as http:
            assert (await http.get("/x")).text == "hello"
            assert await ready_page(http, 200) == "ready\n"
            metrics = await http.get("/-/mesh/metrics")
            assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert "http_server_request_duration_seconds_count" in metrics.text

    for _ in range(2):  # a second start in one process is a life of its own
        life = Life(application)
        async with accepting(port):
            await life.run(during)
        assert life.sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert server.phase == "stopped"
        async with client(application) as http:
            ready = await http.get("/-/mesh/ready")
            assert (ready.status_code, ready.text) == (503, "stopped\n")


async def test_starting_is_said_until_the_application_has_started(make: Any, port: int) -> None:
    server = make(port=port)

    async def slow_start(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with client(application) as http:
                ready = await http.get("/-/mesh/ready")
                assert (ready.status_code, ready.text) == (503, "starting\n")
            await send({"type": "lifespan.startup.complete"})
            await receive()

    application = server.asgi(slow_start)
    await Life(application).run()


async def test_application_without_lifespan(make: Any, port: int) -> None:
    server = make(port=port)

    async def no_lifespan(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http", "no lifespan here"
        await app(scope, receive, send)

    application = server.asgi(no_lifespan)
    with pytest.raises(AssertionError, match="no lifespan here"):
        await Life(application).run()
    async with client(application) as http, accepting(port):
        assert await ready_page(http, 200) == "ready\n"
    await server.aclose()


async def test_a_port_that_does_not_accept_is_not_ready(make: Any, port: int) -> None:
    server = make(port=port)
    async with client(server.asgi(app)) as http:
        assert (await http.get("/x")).text == "hello"
        assert await ready_page(http, 503) == "opening\n"
        assert server.phase == "opening"
        async with accepting(port):
            assert await ready_page(http, 200) == "ready\n"
    await server.aclose()


@pytest.mark.parametrize("identity", ["auto", "consul"])
async def test_ready_waits_for_the_first_answer_about_the_certificate(make: Any, port: int, identity: str) -> None:
    """And not for a certificate: whether there ever is one may be for Consul to say, and Consul away."""
    certificate = Certificate()
    server = make(certificate, port=port, identity=identity)
    async with client(server.asgi(app)) as http, accepting(port):
        assert (await http.get("/x")).text == "hello"
        assert await ready_page(http, 503) == "opening\n"
        assert server._workers._answers["state"]("") == "serving"  # siblings do not leave a port that this one serves
        certificate.release.set()
        assert await ready_page(http, 200) == "ready\n"
    await server.aclose()


async def test_pages_can_be_moved_and_turned_off(make: Any, port: int) -> None:
    server = make(port=port, ready_path=None, metrics_path="/numbers")
    async with client(server.asgi(app)) as http:
        assert (await http.get("/-/mesh/ready")).text == "hello"
        assert (await http.get("/-/mesh/metrics")).text == "hello"
        assert (await http.get("/numbers")).text != "hello"
    await server.aclose()


async def test_process_without_a_port_has_phases_only(make: Any) -> None:
    server = make(port=None)
    application = server.asgi(app)
    await Life(application).run()
    assert server.phase == "stopped"
    async with client(application) as http:
        assert (await http.get("/x")).text == "hello"


def test_close_is_bounded_and_repeatable(make: Any, port: int) -> None:
    server = make(port=port)
    server.wsgi(lambda environ, start_response: [])
    began = time.monotonic()
    server.close()
    server.close()
    assert time.monotonic() - began < 2
    assert server.phase == "stopped"


def test_wrapping_twice_is_wrapping_once(make: Any) -> None:
    server = make(port=None)
    once = server.asgi(app)
    assert server.asgi(once) is once
    bare = server.wsgi(lambda environ, start_response: [])
    assert server.wsgi(bare) is bare
    assert server.in_flight == 0

"""Metrics of all workers: merged, inherited, and served on a port of their own."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest

from meshsdk.server import scrape as module
from meshsdk.server.answers import Answer
from meshsdk.server.scrape import MetricsPort, Scrape
from meshsdk.telemetry.metrics import Metrics
from meshsdk.telemetry.requests import RequestEnded, RequestStarted


class Others:
    """Siblings that say what the test wants."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    async def ask(self, question: str) -> list[str]:
        assert question == "metrics"
        return self.texts


def counted(requests: int) -> Metrics:
    metrics = Metrics()
    for _ in range(requests):
        metrics.sink(RequestStarted("GET"))
        metrics.sink(RequestEnded("GET", "/a", "/a", 200, 0.1))
    return metrics


def total(text: str) -> float:
    lines = [line for line in text.splitlines() if line.startswith("http_server_request_duration_seconds_count")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def scrape_of(requests: int, *others: str) -> Scrape:
    siblings: Any = Others(*others)
    return Scrape(counted(requests), siblings)


async def test_sum_over_workers() -> None:
    answer = await scrape_of(2, scrape_of(3).own(), scrape_of(5).own()).answer()
    assert answer.status == 200
    assert total(answer.body.decode()) == 10


async def test_what_an_ended_worker_counted_is_kept() -> None:
    scrape = scrape_of(2)
    scrape.inherit(scrape_of(3).own())
    scrape.inherit(scrape_of(4).own())
    assert total(scrape.own()) == 9
    heir = scrape_of(0)
    heir.inherit(scrape.own())
    assert total(heir.own()) == 9


async def test_unreadable_worker_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        answer = await scrape_of(2, "<html>", "").answer()
    assert total(answer.body.decode()) == 2
    assert "a worker's metrics are left out of this scrape" in caplog.text


async def asked(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    reply = await reader.read()
    writer.close()
    return reply


async def text() -> Answer:
    return Answer(200, b"numbers\n")


async def test_port(port: int) -> None:
    serving = asyncio.create_task(MetricsPort("127.0.0.1", port, "/-/mesh/metrics", text).run())
    await asyncio.sleep(0)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        await asyncio.sleep(0.01)
    found = await asked(port, b"GET /-/mesh/metrics?x=1 HTTP/1.1\r\nhost: x\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert found.endswith(b"\r\n\r\nnumbers\n")
    assert (await asked(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")).endswith(b"connection: close\r\n\r\n")
    assert b"404 Not Found" in await asked(port, b"GET / HTTP/1.1\r\n\r\n")
    assert b"405 Method Not Allowed" in await asked(port, b"POST /metrics HTTP/1.1\r\n\r\n")
    assert await asked(port, b"x" * 20_000) == b""
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_port_is_taken_over(port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "_TAKE_OVER", 0.01)
    with caplog.at_level(logging.INFO), socket.create_server(("127.0.0.1", port)):
        serving = asyncio.create_task(MetricsPort("127.0.0.1", port, None, text).run())
        await asyncio.sleep(0.05)
    assert caplog.text.count("is not ours yet") == 1
    for _ in range(200):
        try:
            assert b"numbers" in await asked(port, b"GET /metrics HTTP/1.1\r\n\r\n")
            break
        except OSError:
            await asyncio.sleep(0.01)
    else:
        pytest.fail("the port was not taken over")
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving

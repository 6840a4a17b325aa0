"""Metrics for Prometheus: one text for all workers of the server, on a path of the application or a port of its own."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable

from meshsdk.server.answers import Answer, method_not_allowed
from meshsdk.server.workers import Workers
from meshsdk.telemetry.metrics import Metrics
from meshsdk.telemetry.prometheus import CONTENT_TYPE, expose, lasting, merge

__all__ = ["MetricsPort", "Scrape"]

log = logging.getLogger("meshsdk.server")

# A scrape's request is one line and a few headers; who needs longer to send them is not a scraper.
_HEAD_LIMIT = 8192
_HEAD_WAIT = 5.0
# How soon another worker takes the port over when the one that served it has gone.
_TAKE_OVER = 2.0


class Scrape:
    """What this process and its siblings counted.

    Args:
        metrics: this process's counts.
        workers: the siblings.
    """

    def __init__(self, metrics: Metrics, workers: Workers) -> None:
        self._metrics = metrics
        self._workers = workers
        self._inherited = ""

    def own(self) -> str:
        """This process's text, with what ended siblings left to it."""
        return merge([expose(self._metrics.collect()), self._inherited])

    def inherit(self, text: str) -> None:
        """Keep what a sibling that ends has counted: sums that fall look like a restart of the whole server."""
        self._inherited = merge([self._inherited, lasting(text)])

    async def answer(self) -> Answer:
        """The text of all workers; what a sibling wrote that cannot be read is left out, and the log says so."""
        texts = [self.own()]
        for text in await self._workers.ask("metrics"):
            try:
                texts.append(merge([text]))
            except ValueError as error:
                log.warning("a worker's metrics are left out of this scrape: %s", error)
        return Answer(200, merge(texts).encode(), CONTENT_TYPE)


class MetricsPort:
    """A port that serves the metrics and nothing else.

    Workers of one server are given the same port: the first takes it and answers for all, the others wait for it.

    Args:
        path: where the metrics are, beside `/metrics`; None for that alone.
        answer: makes the reply.
    """

    def __init__(self, host: str, port: int, path: str | None, answer: Callable[[], Awaitable[Answer]]) -> None:
        self._host = host
        self._port = port
        self._paths = {"/metrics", path or "/metrics"}
        self._answer = answer

    async def run(self) -> None:
        """Serve until cancelled."""
        server = await self._bind()
        async with server:
            await server.serve_forever()

    async def _bind(self) -> asyncio.Server:
        told = False
        while True:
            try:
                return await asyncio.start_server(self._serve, self._host, self._port, limit=_HEAD_LIMIT)
            except OSError as error:
                level = logging.INFO if error.errno == errno.EADDRINUSE else logging.WARNING
                if not told:
                    log.log(level, "metrics port %s:%d is not ours yet: %s", self._host, self._port, error)
                told = True
            await asyncio.sleep(_TAKE_OVER)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_WAIT):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, _, rest = head.partition(" ")
            answer = await self._reply(method, rest.partition(" ")[0].partition("?")[0])
            writer.write(_written(answer, with_body=method != "HEAD"))
            await writer.drain()
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError) as error:
            log.debug("a request for metrics was not one: %s", error)
        finally:
            writer.close()

    async def _reply(self, method: str, path: str) -> Answer:
        if method not in {"GET", "HEAD"}:
            return method_not_allowed(method)
        if path not in self._paths:
            return Answer(404, f"metrics are at {' and '.join(sorted(self._paths))}\n".encode())
        return await self._answer()


def _written(answer: Answer, *, with_body: bool) -> bytes:
    headers = b"".join(b"%s: %s\r\n" % pair for pair in (*answer.headers, (b"connection", b"close")))
    body = answer.body if with_body else b""
    return b"HTTP/1.1 %s\r\n%s\r\n%s" % (answer.status_line.encode(), headers, body)

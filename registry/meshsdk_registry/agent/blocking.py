"""Holds the dev agent's blocking queries until there is something newer, the wait is over, or the caller has gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from meshsdk_registry.agent.bodies import Refused, duration

__all__ = ["Blocking", "Found", "News"]

DEFAULT_WAIT, MAX_WAIT = 300.0, 600.0  # seconds; Consul's default_query_time and max_query_time


@dataclass(frozen=True, slots=True)
class Found:
    """What a query found: the index, and the payload, None for "there is no such key"."""

    index: int
    payload: Any


class News:
    """Wakes all who wait whenever the state changes."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Let all who wait now look again."""
        self._event.set()
        self._event = asyncio.Event()

    def wait(self) -> Coroutine[Any, Any, object]:
        """Wait for the next change after this call, also one that comes before the wait is begun."""
        return self._event.wait()


class Blocking:
    """One query's patience, read from its `index` and `wait`.

    Raises:
        Refused: 400 in Consul's words for what is not an index or a duration.
    """

    def __init__(self, request: Request, rng: random.Random) -> None:
        self._request = request
        self._minimum = _index(request.query_params.get("index") or "0")
        wait = min(_seconds(request.query_params.get("wait")) or DEFAULT_WAIT, MAX_WAIT)
        self._patience = wait + rng.uniform(0, wait / 16)

    async def run(self, query: Callable[[], Found], news: News) -> Found:
        """Ask until the index is past the caller's, or the patience is over."""
        found = query()
        if not self._minimum or found.index > self._minimum:
            return found
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        gone = loop.create_task(self._gone())
        try:
            while found.index <= self._minimum and not gone.done() and loop.time() < deadline:
                fresh = loop.create_task(news.wait())
                await asyncio.wait({fresh, gone}, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED)
                fresh.cancel()
                found = query()
        finally:
            gone.cancel()
        return found

    async def _gone(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass


def _index(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise Refused(400, "Invalid index")
    return int(text)


def _seconds(text: str | None) -> float:
    try:
        return duration(text) if text else 0.0
    except Refused as refused:
        raise Refused(400, "Invalid wait time") from refused

"""The demo's calls, and what became of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from meshsdk.errors import DeadlineExceeded

if TYPE_CHECKING:
    import httpx

__all__ = ["CALLS", "Load", "first_status", "first_timeout", "load_of"]

CALLS = 300
AT_ONCE = 6


@dataclass(slots=True)
class Load:
    """What a number of calls brought: by instance, and what failed."""

    by_port: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    @property
    def calls(self) -> int:
        """How many were made."""
        return self.by_port.total() + len(self.errors)

    @property
    def shares(self) -> str:
        """Which instance answered how many, such as `:8001 × 52`."""
        return "  ".join(f":{port} × {count}" for port, count in sorted(self.by_port.items()))


async def load_of(http: httpx.AsyncClient) -> Load:
    """Make `CALLS` calls to payments, `AT_ONCE` at a time."""
    load = Load()

    async def some(count: int) -> None:
        for _ in range(count):
            try:
                answer: dict[str, Any] = (await http.get("http://payments/whoami")).raise_for_status().json()
                load.by_port[answer["port"]] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed call, and the demo's to tell
                load.errors.append(f"{type(error).__name__}: {error}")

    await asyncio.gather(*(some(CALLS // AT_ONCE) for _ in range(AT_ONCE)))
    return load


async def first_timeout(http: httpx.AsyncClient, url: str) -> tuple[float, DeadlineExceeded] | None:
    """Begin a call every 20 ms for 2 s; return when the first that is cut off began, and what its caller was told."""
    found: asyncio.Future[tuple[float, DeadlineExceeded]] = asyncio.get_running_loop().create_future()

    async def call() -> None:
        began = time.monotonic()
        try:
            (await http.get(url)).raise_for_status()
        except DeadlineExceeded as error:
            if not found.done():
                found.set_result((began, error))

    calls = []
    for _ in range(100):
        calls.append(asyncio.create_task(call()))
        await asyncio.wait([found], timeout=0.02)
        if found.done():
            break
    await asyncio.gather(*calls)
    return found.result() if found.done() else None


async def first_status(http: httpx.AsyncClient, url: str, status: int) -> float | None:
    """Call every 5 ms for 2 s; return after how many seconds the first call began that was answered with `status`."""
    started = time.monotonic()
    while (began := time.monotonic()) < started + 2:
        if (await http.get(url)).status_code == status:
            return began - started
        await asyncio.sleep(0.005)
    return None

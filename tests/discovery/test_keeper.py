"""What is due is written soon, by one thread, and at the end at the latest."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from meshsdk.core.model import Endpoint
from meshsdk.discovery import keeper
from meshsdk.discovery.keeper import Keeper
from meshsdk.discovery.memory import Memory


class Slow:
    """A disk that takes what it is given, one write at a time, when the test lets it."""

    def __init__(self) -> None:
        self.saved: list[tuple[str, int]] = []
        self.threads: set[str] = set()
        self.let_go = threading.Event()

    def save(self, service: str, memory: Memory) -> None:
        self.let_go.wait(5)
        self.threads.add(threading.current_thread().name)
        self.saved.append((service, memory.endpoints[0].port))


@pytest.fixture
async def kept(monkeypatch):
    monkeypatch.setattr(keeper, "PAUSE", 0.0)
    disk, ports = Slow(), {}

    def memory(service: str) -> Memory | None:
        return Memory((Endpoint("k", "10.0.0.1", ports[service]),)) if service in ports else None

    found = Keeper(disk, memory)
    task = asyncio.create_task(found.run())
    yield disk, ports, found, task
    disk.let_go.set()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def written(disk: Slow, count: int) -> None:
    async with asyncio.timeout(5):
        while len(disk.saved) < count:  # noqa: ASYNC110  # another thread brings it about
            await asyncio.sleep(0.001)


async def test_changes_are_written_off_the_loop_and_what_is_not_known_is_not(kept):
    disk, ports, found, _ = kept
    disk.let_go.set()
    ports["web"] = 1
    found.mark("web")
    found.mark("unknown")
    await written(disk, 1)
    assert disk.saved == [("web", 1)]
    assert threading.current_thread().name not in disk.threads


async def test_changes_during_a_write_are_one_more_write_of_the_newest(kept):
    disk, ports, found, _ = kept
    for ports["web"] in (1, 2, 3):
        found.mark("web")
        await asyncio.sleep(0.02)  # the first is being written
    disk.let_go.set()
    await written(disk, 2)
    assert disk.saved == [("web", 1), ("web", 3)]


async def test_what_is_due_at_the_end_is_written_after_what_is_under_way(kept):
    disk, ports, found, task = kept
    ports["web"] = 1
    found.mark("web")
    await asyncio.sleep(0.02)
    ports["web"] = 2
    found.mark("web")
    threading.Timer(0.05, disk.let_go.set).start()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert disk.saved == [("web", 1), ("web", 2)]


async def test_a_writer_that_takes_no_more_work_is_done_without(kept):
    """At the interpreter's end no thread is started any more."""
    disk, ports, found, _ = kept
    disk.let_go.set()
    found._writer.shutdown()
    ports["web"] = 1
    found.mark("web")
    await written(disk, 1)
    assert disk.threads == {threading.current_thread().name}

"""Writes to disk what changed, soon but not often, off the loop's thread: a flush to a slow disk takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from meshsdk.discovery.disk import Disk
from meshsdk.discovery.memory import Memory

__all__ = ["Keeper"]

PAUSE = 1.0
"""Seconds between two rounds of writing: a service that flaps costs one small file a second."""


class Keeper:
    """The one writer of a process.

    Args:
        disk: where to.
        memory: gives what is known of a service at the moment of writing; None for nothing worth keeping.
    """

    def __init__(self, disk: Disk, memory: Callable[[str], Memory | None]) -> None:
        self._disk = disk
        self._memory = memory
        self._due: set[str] = set()
        self._woken = asyncio.Event()
        # One thread, so that an older state is never written over a newer one.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="meshsdk-disk")

    def mark(self, service: str) -> None:
        """Something changed of this service; on the loop only."""
        self._due.add(service)
        self._woken.set()

    async def run(self) -> None:
        """Write what is due until cancelled; what is due then is written before this ends."""
        try:
            while True:
                await self._woken.wait()
                self._woken.clear()
                while self._due:
                    await self._save(self._due.pop())
                await asyncio.sleep(PAUSE)
        finally:
            self._writer.shutdown()
            while self._due:
                service = self._due.pop()
                if (memory := self._memory(service)) is not None:
                    self._disk.save(service, memory)

    async def _save(self, service: str) -> None:
        if (memory := self._memory(service)) is None:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._disk.save, service, memory)
        except RuntimeError:  # the interpreter is ending and starts no more threads
            self._disk.save(service, memory)

"""Which pools of connections exist, one per endpoint and limit; says what is to be closed and closes nothing itself.

Shared by both colours of an engine. A pool that is no longer wanted stays open until the last reply from it is let go.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from meshsdk.core.model import Endpoint

__all__ = ["Pools", "Slot"]

P = TypeVar("P")

# A pool nobody used for a minute has only connections that most servers have closed by now. Looked at twice a minute.
_FORGET_AFTER = 60.0
_SWEEP_EVERY = 30.0


@dataclass(slots=True, eq=False)
class Slot(Generic[P]):
    """One endpoint's pool and how many replies of it are in use."""

    pool: P
    limit: int
    active: int = 0
    used_at: float = 0.0
    retired: bool = False


class Pools(Generic[P]):
    """The pools of one engine (and loop), by the endpoint's address."""

    def __init__(self, make: Callable[[Endpoint, int], P]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._slots: dict[tuple[str, int], Slot[P]] = {}
        self._spent: list[P] = []
        self._swept_at = 0.0

    def take(self, endpoint: Endpoint, limit: int, now: float) -> Slot[P]:
        """The pool for a send to `endpoint`; to be given back."""
        key = (endpoint.address, endpoint.port)
        with self._lock:
            if now - self._swept_at > _SWEEP_EVERY:
                self._sweep(now)
            slot = self._slots.get(key)
            if slot is None or slot.limit != limit:
                slot = self._replace(key, endpoint, limit)
            slot.active += 1
            slot.used_at = now
        return slot

    def give(self, slot: Slot[P]) -> None:
        """The reply of one `take` is let go."""
        with self._lock:
            slot.active -= 1
            if slot.retired and not slot.active:
                self._spent.append(slot.pool)

    def retire(self, gone: Collection[Endpoint]) -> None:
        """Forget these endpoints' pools."""
        with self._lock:
            for endpoint in gone:
                self._drop((endpoint.address, endpoint.port))

    def drain(self) -> list[P]:
        """Forget everything, in use or not, and return all of it."""
        with self._lock:
            pools = self.everything()
            self._slots, self._spent = {}, []
        return pools

    def everything(self) -> list[P]:
        """All pools, without the lock: for a forked child, where a thread of the parent may hold it for ever."""
        return [slot.pool for slot in self._slots.values()] + self._spent

    def spent(self) -> list[P]:
        """Pools that are now to be closed, each returned once."""
        if not self._spent:
            return []
        with self._lock:
            spent, self._spent = self._spent, []
        return spent

    def _replace(self, key: tuple[str, int], endpoint: Endpoint, limit: int) -> Slot[P]:
        self._drop(key)
        self._slots[key] = slot = Slot(self._make(endpoint, limit), limit)
        return slot

    def _sweep(self, now: float) -> None:
        self._swept_at = now
        idle = [key for key, slot in self._slots.items() if not slot.active and now - slot.used_at > _FORGET_AFTER]
        for key in idle:
            self._drop(key)

    def _drop(self, key: tuple[str, int]) -> None:
        slot = self._slots.pop(key, None)
        if slot is None:
            return
        slot.retired = True
        if not slot.active:
            self._spent.append(slot.pool)

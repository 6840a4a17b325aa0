"""What is to be known before the first request is judged, and the one wait for it.

Rule 1  Until its own policy and Consul's intentions are known a process would let everybody in: so the start-up of an
        ASGI application waits for them, and where there is none, and under WSGI, the first requests do. Keys of token
        issuers that the policy names are waited for with what is left of the time.
Rule 2  All of that takes `seconds` at most from the first question, once in a process. Afterwards `over` says so, which
        is all that later requests look at.
Rule 3  What is not known by then leaves the built-in defaults in force, and one warning says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Beginning", "Door", "Keys", "Source"]

log = logging.getLogger("meshsdk.server")


class Door(Protocol):
    """What opens when something is known: `meshsdk.discovery.gate.Gate`."""

    def wait(self, timeout: float) -> bool:
        """Wait, blocking the thread."""
        ...

    async def await_open(self, seconds: float) -> bool:
        """Wait on the running event loop."""
        ...


class Keys(Protocol):
    """The keys of token issuers: `meshsdk.server.guard.Guard` knows which."""

    def wait_known(self, seconds: float) -> None:
        """Wait, blocking the thread."""
        ...

    async def await_known(self, seconds: float) -> None:
        """Wait on the running event loop."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """Something that decides who may pass.

    Attributes:
        name: for the log, such as "the policy".
        gate: begins to ask for it, and returns what opens when it is known, or when nobody will tell it soon.
        known: whether it is.
    """

    name: str
    gate: Callable[[], Door]
    known: Callable[[], bool]


class Beginning:
    """The wait of one served process.

    Args:
        service: our own name, for the log.
        seconds: how long it may take in all.
        sources: what is waited for; nothing is over at once.
        keys: waited for once the sources are known; None for nothing.
        clock: monotonic seconds.

    Attributes:
        over: rule 2.
    """

    def __init__(
        self,
        service: str,
        seconds: float,
        sources: Sequence[Source] = (),
        *,
        keys: Keys | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.over = not sources
        self._service = service
        self._seconds = seconds
        self._sources = tuple(sources)
        self._keys = keys
        self._clock = clock
        self._until: float | None = None

    def begin(self) -> list[Door]:
        """Ask for everything, and let the time run; what is returned opens when it is known."""
        if self._until is None:
            self._until = self._clock() + self._seconds
        return [source.gate() for source in self._sources]

    def wait(self) -> None:
        """Wait, blocking the thread."""
        if self.over:
            return
        for door in self.begin():
            door.wait(self._left)
        if self._keys is not None:
            self._keys.wait_known(self._left)
        self._end()

    async def await_over(self) -> None:
        """Wait on the running event loop, of asyncio."""
        if self.over:
            return
        for door in self.begin():
            await door.await_open(self._left)
        if self._keys is not None:
            await self._keys.await_known(self._left)
        self._end()

    @property
    def _left(self) -> float:
        return 0.0 if self._until is None else max(0.0, self._until - self._clock())

    def _end(self) -> None:
        if self.over:  # somebody else waited, too
            return
        self.over = True
        missing = [source.name for source in self._sources if not source.known()]
        if missing:
            log.warning(
                "%s: Consul does not tell %s, and nothing of it is remembered on disk: until it does, the built-in"
                " defaults are in force, which let everybody in",
                self._service, " and ".join(missing),
            )  # fmt: skip

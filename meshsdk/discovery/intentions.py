"""Consul's intentions for this process's own service, followed on the background loop.

Rule 1  What Consul said last stays in force while Consul is away, for as long as it takes.
Rule 2  Before its first answer there are none. Who opens a port waits for that answer (`await_known`), a bounded time.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import aclosing

from meshsdk.core.intentions import Intentions
from meshsdk.core.request import ANYONE
from meshsdk.discovery.background import Background
from meshsdk.discovery.gate import Gate
from meshsdk_registry import Back, Changed, Consul, Denied, Intention, Lost, Rejected, watch_intentions

__all__ = ["OwnIntentions"]

_log = logging.getLogger("meshsdk.discovery")


class OwnIntentions:
    """Who may call this service, as Consul's intentions say.

    Args:
        consul: makes a client of Consul; called on the background loop.
        service: our own name.
        background: where the watch runs; it begins with the first question.
        default_allow: what holds where none is about a caller.
    """

    def __init__(
        self, consul: Callable[[], Consul], service: str, *, background: Background, default_allow: bool
    ) -> None:
        self._consul = consul
        self._service = service
        self._background = background
        self._default_allow = default_allow
        self._intentions: Intentions | None = None if default_allow else self._made(())
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        """What each process starts with; a forked child keeps what its parent knew."""
        self._lock = threading.Lock()
        self._life: Future[None] | None = None
        self._gate = Gate()

    def __repr__(self) -> str:
        return f"<OwnIntentions of {self._service!r}: {'some' if self._intentions else 'none'}>"

    def current(self) -> Intentions | None:
        """Those in force; None where none is about this service and the default is to allow."""
        if self._life is None:
            self._start()
        return self._intentions

    async def await_known(self, seconds: float) -> None:
        """Wait for Consul's first answer or refusal, at most `seconds`; from any event loop."""
        self.current()
        await self._gate.await_open(seconds)

    def close(self) -> None:
        """Stop following; what is known stays in force."""
        if self._life is not None:
            self._life.cancel()

    def _start(self) -> None:
        with self._lock:
            if self._life is None:
                self._life = self._background.submit(self._follow)

    async def _follow(self) -> None:
        consul = self._consul()
        try:
            async with aclosing(watch_intentions(consul)) as events:
                async for event in events:
                    self._hear(event)
        finally:
            await consul.aclose()

    def _hear(self, event: Changed[tuple[Intention, ...]] | Lost | Back) -> None:
        match event:
            case Changed(answer):
                self._take(answer.value)
            case Lost(error, _) if isinstance(error, Denied | Rejected):
                _log.warning("Consul refuses to tell of intentions, the last known stay in force: %s", error)
            case Lost(error, _):  # the services' own watches tell of Consul's absence
                _log.debug("intentions cannot be asked for: %s", error)
            case Back():
                _log.debug("intentions are told again")
        self._gate.open()

    def _take(self, entries: Sequence[Intention]) -> None:
        about = [entry for entry in entries if entry.destination in {self._service, ANYONE} and not entry.foreign]
        made = self._made(about)
        for refusal in made.refusals:
            _log.warning("an intention cannot be judged and never lets pass: %s", refusal)
        self._intentions = made if about or not self._default_allow else None

    def _made(self, entries: Sequence[Intention]) -> Intentions:
        return Intentions(entries, self._service, default_allow=self._default_allow)

    def _forked(self) -> None:
        self._begin()


_all: weakref.WeakSet[OwnIntentions] = weakref.WeakSet()


def _after_fork() -> None:
    for intentions in list(_all):
        intentions._forked()  # noqa: SLF001  # this module's own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

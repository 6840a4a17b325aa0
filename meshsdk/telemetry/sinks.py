"""Fan-out of events: every sink hears what it asked for, and none can break a call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Fanout"]

E = TypeVar("E")

log = logging.getLogger("meshsdk.telemetry")


class Fanout(Generic[E]):
    """Hands an event to each sink in order; to one that has `hears`, a tuple of classes, only those events.

    A sink that raises is logged with its stack, once; it still hears later events, for it may have failed on one only.
    """

    def __init__(self, *sinks: Callable[[E], None]) -> None:
        self._sinks = sinks
        self._listening: dict[type, tuple[Callable[[E], None], ...]] = {}  # by the event's class, as they come up
        self._accused: set[Callable[[E], None]] = set()

    def __call__(self, event: E) -> None:
        """Tell everybody."""
        kind = type(event)
        for sink in self._listening.get(kind) or self._listeners(kind):
            try:
                sink(event)
            except Exception:  # noqa: BLE001 (whatever it is, the call goes on)
                self._accuse(sink, event)

    def _listeners(self, kind: type[Any]) -> tuple[Callable[[E], None], ...]:
        listeners = tuple(sink for sink in self._sinks if issubclass(kind, getattr(sink, "hears", object)))
        self._listening[kind] = listeners
        return listeners

    def _accuse(self, sink: Callable[[E], None], event: E) -> None:
        if sink not in self._accused:
            self._accused.add(sink)
            log.exception("telemetry sink %r failed on %r; further failures of it are not logged", sink, event)

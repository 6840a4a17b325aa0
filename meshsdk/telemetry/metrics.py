"""What is counted and what is read, of one process.

Rule 1  `sink` may be called from anywhere, and costs next to nothing: see `meshsdk.telemetry.counts`.
Rule 2  A gauge is read when somebody collects, and not before.
Rule 3  A forked child starts from zero: what the parent counted is told by the parent.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from weakref import WeakSet

from meshsdk.telemetry import catalogue
from meshsdk.telemetry.counts import Counts, Recorder
from meshsdk.telemetry.instruments import Family, Reading, Sample

__all__ = ["Metrics", "Recorder"]

log = logging.getLogger("meshsdk.telemetry")


class Metrics:
    """All counts and gauges of one process.

    Attributes:
        sink: counts one event of the core or of the server.
    """

    def __init__(self) -> None:
        self._counts = Counts()
        self._gauges: list[Callable[[], Iterable[Reading]]] = []
        self.sink = self._counts.sink
        _living.add(self)

    def observe_gauges(self, callback: Callable[[], Iterable[Reading]]) -> None:
        """Ask `callback` for its readings whenever somebody collects; their names are those of `catalogue.GAUGES`."""
        self._gauges.append(callback)

    def record_durations(self, recorder: Recorder, wanted: Callable[[], bool] = lambda: True) -> None:
        """Hand every duration to `recorder` too; as `Counts.record_durations`."""
        self._counts.record_durations(recorder, wanted)

    def collect(self) -> list[Family]:
        """Everything counted and read up to now; a metric without a series is left out."""
        return [family for family in (*self._counts.families(), *self._read()) if family.samples]

    def reset(self) -> None:
        """Forget every count and whatever waits; the readers of gauges stay."""
        self._counts.reset()

    def _read(self) -> list[Family]:
        families = {name: Family(metric, []) for name, metric in catalogue.GAUGES.items()}
        for callback in self._gauges:
            try:
                for reading in callback():
                    families[reading.name].samples.append(Sample(reading.labels, reading.value))
            except Exception:  # one broken reader must not cost the others their metrics
                log.exception("a reader of gauges failed: %r", callback)
        return list(families.values())


_living: WeakSet[Metrics] = WeakSet()


def _start_from_zero() -> None:
    for metrics in _living:
        metrics.reset()


os.register_at_fork(after_in_child=_start_from_zero)

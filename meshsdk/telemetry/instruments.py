"""Counters, gauges and histograms as plain dictionaries with a bound on their series.

Rule 1  An instrument has one writer at a time; `Metrics` sees to that (see there). So there is no lock in here.
Rule 2  A metric holds at most `SERIES` series. What would be one more is counted in a series whose labels all say
        `other`, and `overflow` counts how often that happened: a wrong dashboard beats a full memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "DURATION_BOUNDS",
    "OTHER",
    "SERIES",
    "Counter",
    "Family",
    "Histogram",
    "Metric",
    "Reading",
    "Sample",
]

Labels = tuple[str, ...]

SERIES: Final = 1000  # per metric; the OpenTelemetry SDK stops at 2,000, and ours are read by people
OTHER: Final = "other"
LABEL_LENGTH: Final = 120  # a longer value is cut: routes and names of services are far shorter

# The HTTP conventions of OpenTelemetry advise these bounds for both durations, in seconds. Not Final: mypyc 2.3 takes a
# Final tuple of floats for one that was never set.
DURATION_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """What a metric is called and means.

    Attributes:
        name: with dots, as in OpenTelemetry.
        unit: UCUM: `s`, or `{thing}` for counts.
        labels: attribute names with dots, in the order of every sample's values.
        merge: how several workers' values become one: `sum`; `max` for states and ages, `min` for time left.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    help: str
    labels: tuple[str, ...]
    merge: Literal["sum", "max", "min"] = "sum"


@dataclass(slots=True)
class Sample:
    """One series: its label values, and a value or, for a histogram, bucket counts (not cumulative), count and sum."""

    labels: Labels
    value: float
    buckets: tuple[int, ...] = ()
    count: int = 0


@dataclass(slots=True)
class Family:
    """A metric with all its series at one moment; a sample's `value` is the sum for histograms."""

    metric: Metric
    samples: list[Sample]
    bounds: tuple[float, ...] = ()


@dataclass(slots=True)
class Reading:
    """One value of a gauge, read when somebody collects: which metric, its label values in order, the value."""

    name: str
    labels: Labels
    value: float


class Counter:
    """A sum per series; negative amounts make it an up-down counter, told as a gauge."""

    def __init__(self, metric: Metric, limit: int = SERIES) -> None:
        self.metric = metric
        self.overflow = 0
        self._limit = limit
        self._values: dict[Labels, list[float]] = {}  # one number each, in a list so that it can be held

    def add(self, labels: Labels, amount: float = 1) -> None:
        """Add `amount` to the series of these label values."""
        cell = self._values.get(labels)
        if cell is None:
            cell, fresh = self.series(labels)
            self.overflow += not fresh
        cell[0] += amount

    def set(self, labels: Labels, value: float) -> None:
        """Put the series of these label values to `value`."""
        cell = self._values.get(labels)
        if cell is None:
            cell, fresh = self.series(labels)
            self.overflow += not fresh
        cell[0] = value

    def series(self, labels: Labels) -> tuple[list[float], bool]:
        """The series of these label values, its number in a list, and whether it is theirs alone.

        One that is may be held and added to by hand, until `clear`; else it is `other`, for this once.
        """
        labels, fresh = _admit(labels, self._values, len(self._values) < self._limit)
        return self._values.setdefault(labels, [0]), fresh

    def family(self) -> Family:
        """All series now."""
        return Family(self.metric, [Sample(labels, cell[0]) for labels, cell in self._values.items()])

    def clear(self) -> None:
        """Forget every series."""
        self._values.clear()
        self.overflow = 0


class Histogram:
    """Counts per bucket, with sum, per series."""

    def __init__(self, metric: Metric, bounds: Sequence[float] = DURATION_BOUNDS, limit: int = SERIES) -> None:
        self.metric = metric
        self.overflow = 0
        self._limit = limit
        self._bounds = tuple(bounds)
        self._counts: dict[Labels, list[float]] = {}

    def observe(self, labels: Labels, value: float) -> None:
        """Count `value` in its bucket; a value equal to a bound belongs below it, as Prometheus' `le` says."""
        row = self._counts.get(labels)
        if row is None:
            row, fresh = self.series(labels)
            self.overflow += not fresh
        self.put(row, value)

    def put(self, row: list[float], value: float) -> None:
        """Count `value` in a series that `series` gave."""
        row[bisect_left(self._bounds, value)] += 1
        row[-1] += value

    def series(self, labels: Labels) -> tuple[list[float], bool]:
        """The series of these label values and whether it is theirs alone, as `Counter.series`."""
        labels, fresh = _admit(labels, self._counts, len(self._counts) < self._limit)
        return self._counts.setdefault(labels, [0] * (len(self._bounds) + 2)), fresh

    def family(self) -> Family:
        """All series now."""
        samples = []
        for labels, row in self._counts.items():
            buckets = tuple(int(n) for n in row[:-1])
            samples.append(Sample(labels, row[-1], buckets, sum(buckets)))
        return Family(self.metric, samples, self._bounds)

    def clear(self) -> None:
        """Forget every series."""
        self._counts.clear()
        self.overflow = 0


def _admit(labels: Labels, known: Container[Labels], room: bool) -> tuple[Labels, bool]:
    """The label values to count under, and whether they are the ones asked for."""
    cut = tuple(value[:LABEL_LENGTH] for value in labels)
    return (cut, True) if room or cut in known else ((OTHER,) * len(labels), False)

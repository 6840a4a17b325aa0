"""What is measured line by line, how it is printed, and the bars it is held against."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.servers import SIZES

__all__ = ["BARS", "LINES", "Bar", "Line", "Measured", "Sample"]

_NAMES = {"/small": "17 B", "/large": "64 KiB", "/stream": "10 MiB streamed"}


@dataclass(frozen=True)
class Line:
    """One kind of call: on which loop (`sync` is none), how many at a time, for what, on a new connection or not."""

    loop: str
    at_a_time: int
    target: str
    fresh: bool = False

    def __str__(self) -> str:
        what = "connect + call" if self.fresh else _NAMES[self.target]
        return f"{self.loop}, {self.at_a_time} at a time, {what}"


LINES = [
    *(
        Line(loop, at_a_time, target)
        for loop in ("uvloop", "asyncio")
        for target in ("/small", "/large")
        for at_a_time in (1, 16, 64)
    ),
    *(Line(loop, 1, "/stream") for loop in ("uvloop", "asyncio")),
    *(Line("sync", at_a_time, "/small") for at_a_time in (1, 16)),
    *(Line("sync", 1, target) for target in ("/large", "/stream")),
]


@dataclass(frozen=True)
class Sample:
    """One block: so many calls, in so many seconds by the wall clock and of this process's CPU."""

    calls: int
    wall: float
    cpu: float


@dataclass(frozen=True)
class Measured:
    """The samples of one line by client, in the order of the rounds."""

    line: Line
    samples: Mapping[str, Sequence[Sample]]

    def times(self, client: str, than: str) -> float:
        """How many times as long as `than` a call of `client` takes."""
        pairs = zip(self.samples[client], self.samples[than], strict=True)
        return statistics.median(one.wall / one.calls / (other.wall / other.calls) for one, other in pairs)

    def more(self, client: str, than: str) -> float:
        """How many seconds longer than one of `than` a call of `client` takes."""
        pairs = zip(self.samples[client], self.samples[than], strict=True)
        return statistics.median(one.wall / one.calls - other.wall / other.calls for one, other in pairs)

    def table(self) -> str:
        """Per client: µs per call by the wall clock and of CPU, calls and megabytes per second, time against httpx."""
        rows = [f"{self.line!s:<38}{'µs':>9}{'CPU µs':>9}{'calls/s':>10}{'MB/s':>9}{'× httpx':>9}"]
        for client, samples in self.samples.items():
            wall = statistics.median(sample.wall / sample.calls for sample in samples)
            cpu = statistics.median(sample.cpu / sample.calls for sample in samples)
            size = SIZES[self.line.target]
            rate = f"{size / wall / 1e6:.0f}" if size > 1024 else "-"
            figures = f"{wall * 1e6:>9.0f}{cpu * 1e6:>9.0f}{1 / wall:>10,.0f}{rate:>9}"
            rows.append(f"  {client:<36}{figures}{self.times(client, 'httpx'):>9.2f}")
        return "\n".join(rows)


@dataclass(frozen=True)
class Bar:
    """At most `most` times the time of another client or, where `rate`, at least 1 / `most` times its rate."""

    line: Line
    client: str
    than: str
    most: float
    rate: bool = False

    def verdict(self, measured: Measured) -> str:
        """One line: the bar, the value, whether it holds."""
        times = measured.times(self.client, self.than)
        what, sign = ("rate", "≥") if self.rate else ("time", "≤")
        bound, value = (1 / self.most, 1 / times) if self.rate else (self.most, times)
        told = f"{self.client} {sign} {bound:.2f} × {self.than}'s {what}"
        return f"{self.line!s:<38}{told:<38}{value:>7.2f}  {'pass' if times <= self.most else 'FAIL'}"


_LOOPS = ("uvloop", "asyncio")

BARS = [
    *(Bar(Line(loop, 1, "/small"), "ours", "httpx", 0.5) for loop in _LOOPS),
    *(Bar(Line(loop, 16, "/small"), "ours", "httpx", 1 / 5, rate=True) for loop in _LOOPS),
    *(
        Bar(Line(loop, at_a_time, "/small"), "bare engine", "aiohttp", 1.0)
        for loop in _LOOPS
        for at_a_time in (1, 16, 64)
    ),
    Bar(Line("sync", 1, "/small"), "ours", "httpx", 0.75),
    *(Bar(Line(loop, 1, "/stream"), "ours", "aiohttp", 1 / 0.9, rate=True) for loop in _LOOPS),
]

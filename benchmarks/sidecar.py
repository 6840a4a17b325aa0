"""Our sidecar next to Envoy and haproxy: requests per second, latency, CPU and memory, and the bars they are held to.

    python benchmarks/sidecar.py [--seconds 2] [--rounds 5] [--only TEXT]

wrk, nginx and Consul have one core, all proxies the other. Every line of the table is measured in rounds of blocks, one
per contestant and round, so that a change in the machine's load hits all alike. Figures are medians over the rounds; `×
Envoy` is the median of what the rounds say, of the rate and of the requests per CPU-second; memory is the peak of the
run so far. At half load all get the same requests per second, half of what Envoy took at most, at random moments;
latency counts from the moment at which a request was due, and the first `× Envoy` is of the p99. These lines take twice
as many rounds, as a p99 differs more from block to block.

Ours has one worker and every feature on. A pair is two sidecars with mutual TLS between them, the second with an
authorization rule. It takes about 10 minutes; the exit code is 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load import Load, build_paced, full, paced
from benchmarks.processes import usage
from benchmarks.ways import CONTESTANTS, PAIR, SINGLE, TARGETS, Way, compiled, ground, interpreter, ways

LEAST_RATE = {SINGLE: 1.0, PAIR: 1.2}  # times Envoy's, with so many connections:
JUDGED = 32
MOST_P99, MOST_MEMORY = 1.0, 0.6
LEAST_SHARE = 0.9
TAIL = 2  # times as many rounds where p99 is judged: a stall of the machine is in that of one block and not of the next
NAMES = {"/1k": "1 KiB", "/64k": "64 KiB"}


@dataclass(frozen=True)
class Line:
    """One kind of load: on so many connections, for what, as much as it takes or half of that."""

    hop: str
    connections: int
    target: str
    half: bool = False

    def __str__(self) -> str:
        many = "connection" if self.connections == 1 else "connections"
        return f"{self.hop}, {self.connections} {many}, {NAMES[self.target]}{', half load' if self.half else ''}"


LINES = [
    *(Line(hop, connections, target) for hop in CONTESTANTS for target in TARGETS for connections in (1, JUDGED, 256)),
    *(Line(hop, JUDGED, target, half=True) for hop in CONTESTANTS for target in TARGETS),
]


@dataclass(frozen=True)
class Sample:
    """One block: what the load found, the CPU seconds of the proxies meanwhile."""

    load: Load
    cpu: float

    @property
    def per_cpu(self) -> float:
        """Requests per CPU-second; 0 where the block was too short for the kernel to count any."""
        return self.load.done / self.cpu if self.cpu else 0.0

    @property
    def share(self) -> float:
        """Of one core, how much the proxies had."""
        return self.cpu * self.load.rate / self.load.done if self.load.done else 0.0


@dataclass
class Measured:
    """The samples of one line by contestant, in the order of the rounds; peak memory in MiB after it."""

    line: Line
    samples: dict[str, list[Sample]]
    peak: dict[str, float] = field(default_factory=dict)

    def median(self, name: str, what: Callable[[Sample], float]) -> float:
        """Over the rounds."""
        return statistics.median(map(what, self.samples[name]))

    def times(self, name: str, what: Callable[[Sample], float]) -> float:
        """How many times Envoy's it is, round by round."""
        pairs = zip(self.samples[name], self.samples["Envoy"], strict=True)
        return statistics.median(what(one) / (what(other) or float("nan")) for one, other in pairs)

    @property
    def compared(self) -> Callable[[Sample], float]:
        """What `× Envoy` is of: the rate, or p99 where the rate is given."""
        return p99 if self.line.half else rate

    def table(self) -> str:
        """One row per contestant."""
        columns = (
            f"{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'× Envoy':>9}{'per CPU-s':>11}{'× Envoy':>9}{'peak MiB':>10}"
        )
        head = f"{self.line!s:<46}{columns}"
        return "\n".join([head, *map(self._row, self.samples)])

    def _row(self, name: str) -> str:
        times = [self.median(name, lambda sample: sample.load.p50) * 1e3, self.median(name, p99) * 1e3]
        latency = "".join(f"{value:>9.2f}" for value in times)
        figures = f"{self.median(name, rate):>11,.0f}{latency}{self.times(name, self.compared):>9.2f}"
        figures += f"{self.median(name, per_cpu):>11,.0f}{self.times(name, per_cpu):>9.2f}{self.peak[name]:>10.1f}"
        failed = next((sample.load for sample in self.samples[name] if sample.load.failed), None)
        note = f"  {failed.failed} FAILED: {failed.why}" if failed else ""
        return f"  {name:<44}{figures}{note}"


def rate(sample: Sample) -> float:
    return sample.load.rate


def p99(sample: Sample) -> float:
    return sample.load.p99


def per_cpu(sample: Sample) -> float:
    return sample.per_cpu


# --- one line -----------------------------------------------------------------------------------------


def measure(line: Line, contestants: Sequence[Way], rounds: int, load: Callable[[Way], Load]) -> Measured:
    """Blocks in turn; who begins changes with the round. Each one's first opens connections and is not counted."""
    found = Measured(line, {way.name: [] for way in contestants})
    for way in contestants:
        load(way)
    for turn in range(rounds):
        first = turn % len(contestants)
        for way in [*contestants[first:], *contestants[:first]]:
            before = usage(way.pids).cpu
            loaded = load(way)
            found.samples[way.name].append(Sample(loaded, usage(way.pids).cpu - before))
    found.peak = {way.name: usage(way.pids).peak for way in contestants}
    return found


def loader(
    line: Line, contestants: Sequence[Way], measured: Mapping[Line, Measured], seconds: int, program: Path
) -> Callable[[Way], Load]:
    """What loads one contestant for the length of a block."""
    if not line.half:
        return lambda way: full(way.aim(line.target), line.connections, seconds)
    if before := measured.get(Line(line.hop, line.connections, line.target)):
        most = before.median("Envoy", rate)
    else:
        envoy = next(way for way in contestants if way.name == "Envoy")
        most = full(envoy.aim(line.target), line.connections, seconds).rate
    return lambda way: paced(program, way.aim(line.target), line.connections, most / 2, seconds)


# --- the bars -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """One bar: what was to hold, what was found, whether it held."""

    what: str
    bar: str
    value: float
    held: bool

    def __str__(self) -> str:
        return f"{self.what:<46}{self.bar:<30}{self.value:>8.2f}  {'pass' if self.held else 'FAIL'}"


def verdicts(measured: Sequence[Measured]) -> Iterator[Verdict]:
    """The bars that can be judged by what was measured."""
    for found in measured:
        line = found.line
        if line.half:
            value = found.times("ours", p99)
            yield Verdict(str(line), f"p99 ≤ {MOST_P99:.1f} × Envoy's", value, value <= MOST_P99)
        elif line.connections == JUDGED:
            value, least = found.times("ours", rate), LEAST_RATE[line.hop]
            yield Verdict(str(line), f"requests/s ≥ {least:.1f} × Envoy's", value, value >= least)
    for hop in CONTESTANTS:
        if peaks := [found.peak for found in measured if found.line.hop == hop]:
            value = max(peak["ours"] for peak in peaks) / max(peak["Envoy"] for peak in peaks)
            yield Verdict(hop, f"peak memory ≤ {MOST_MEMORY:.1f} × Envoy's", value, value <= MOST_MEMORY)
    failed = sum(sample.load.failed for found in measured for sample in found.samples["ours"])
    yield Verdict("ours, all lines", "failed requests: 0", failed, not failed)


def quiet(measured: Sequence[Measured]) -> list[str]:
    """Nothing, or that rates and latencies say little: proxies at their most take all of their core if it is free."""
    full_lines = [found for found in measured if not found.line.half and found.line.connections >= JUDGED]
    shares = [sample.share for found in full_lines for samples in found.samples.values() for sample in samples]
    if not shares or (share := statistics.median(shares)) >= LEAST_SHARE:
        return []
    return [f"others took part of the proxies' core, {share:.0%} was left: judge by requests per CPU-second and memory"]


# --- all of them --------------------------------------------------------------------------------------


def run(lines: Sequence[Line], seconds: int, rounds: int) -> bool:
    """Measure, print, judge; whether every bar held."""
    hops = list(dict.fromkeys(line.hop for line in lines))
    measured: dict[Line, Measured] = {}
    with ground() as there, ExitStack() as stack:
        program = build_paced(there.folder) if any(line.half for line in lines) else Path()
        started = ways(stack, there, hops)
        load_average = os.getloadavg()[0]
        print("ours:", "compiled," if compiled() else "in Python, not compiled (`make compiled` does),", runtime())
        print(f"{rounds} rounds of blocks of {seconds} s; load average {load_average:.1f}; memory before:", end=" ")
        print(", ".join(f"{way.name} {way.hop} {way.idle:.1f} MiB" for way in started), flush=True)
        for line in lines:
            contestants = [way for way in started if way.hop == line.hop]
            load = loader(line, contestants, measured, seconds, program)
            measured[line] = measure(line, contestants, rounds * TAIL if line.half else rounds, load)
            print(measured[line].table(), flush=True)
    found = list(verdicts(list(measured.values())))
    print("\nbars", *found, *quiet(list(measured.values())), sep="\n")
    return all(verdict.held for verdict in found)


def runtime() -> str:
    """What the sidecars run on."""
    words = [str(interpreter()), "-c", "import platform, ssl; print(platform.python_version(), ssl.OPENSSL_VERSION)"]
    version, openssl = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip().split(" ", 1)
    return f"on {interpreter()}, Python {version} with {openssl}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=2, help="length of a block")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each contestant on each line")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only lines with this text, such as 'single hop, 32'"
    )
    given = parser.parse_args()
    lines = [line for line in LINES if given.only in str(line)]
    if not lines:
        parser.error(f"--only {given.only!r}: no such line; there are: {'; '.join(map(str, LINES))}")
    if given.seconds < 1 or given.rounds < 1:
        parser.error("--seconds and --rounds are at least 1")
    return 0 if run(lines, given.seconds, given.rounds) else 1


if __name__ == "__main__":
    sys.exit(main())

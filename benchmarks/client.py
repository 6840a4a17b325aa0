"""What a call costs through the mesh, next to the HTTP clients one would use without it, and whether memory grows.

    python benchmarks/client.py [--seconds 150] [--quick] [--only TEXT]

Every client calls the same responder, which has a core of its own with the two Envoys; the clients have the other. Each
line of the table (a loop, so many calls at a time, a size) is measured in rounds of short blocks, one block per client
and round, so that a change in the machine's load hits all alike. The figures are medians over the rounds; `× httpx` is
the median of what the rounds say, wall time against wall time. `ours` has three instances and every feature on:
balancing by peak-ewma, retries, breaker, outlier detection, limits, deadlines, metrics, access log, trace context.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import uvloop

from benchmarks import memory
from benchmarks.callers import ASYNC, SYNC, AsyncCaller, Caller, begin_trace
from benchmarks.servers import SIZES, Stage, loaded, stage
from benchmarks.table import BARS, LINES, Line, Measured, Sample

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
ROUNDS, LEAST_ROUNDS = 7, 2  # fewer where a block takes longer than it should: every worker calls at least once
MEMORY_SECONDS = 30.0  # what the part on memory takes, about


# --- one block ----------------------------------------------------------------------------------------


def expect(size: int, target: str) -> None:
    if size != SIZES[target]:
        raise RuntimeError(f"{target}: {size} bytes instead of {SIZES[target]}")


async def async_block(caller: AsyncCaller, line: Line, seconds: float) -> Sample:
    call = caller.stream if line.target == "/stream" else caller.get
    wall, cpu = time.perf_counter(), time.process_time()
    until = wall + seconds

    async def calls() -> int:
        done = 0
        while not done or time.perf_counter() < until:
            expect(await call(line.target), line.target)
            done += 1
        return done

    count = (
        await calls() if line.at_a_time == 1 else sum(await asyncio.gather(*(calls() for _ in range(line.at_a_time))))
    )
    return Sample(count, time.perf_counter() - wall, time.process_time() - cpu)


def block(caller: Caller, line: Line, seconds: float, threads: ThreadPoolExecutor) -> Sample:
    call = caller.stream if line.target == "/stream" else caller.get
    wall, cpu = time.perf_counter(), time.process_time()
    until = wall + seconds

    def calls(_: object = None) -> int:
        done = 0
        while not done or time.perf_counter() < until:
            expect(call(line.target), line.target)
            done += 1
        return done

    count = calls() if line.at_a_time == 1 else sum(threads.map(calls, repeat(None, line.at_a_time)))
    return Sample(count, time.perf_counter() - wall, time.process_time() - cpu)


# --- one line -----------------------------------------------------------------------------------------


def rounds_of(line: Line, clients: Sequence[str], seconds: float, block: Callable[[str], Sample]) -> Measured:
    """Blocks in turn until the time is over; who begins changes with the round.

    Each client's first block opens its connections and is not counted.
    """
    samples: dict[str, list[Sample]] = {client: [] for client in clients}
    until = time.perf_counter() + seconds
    for client in clients:
        block(client)
    turn = 0
    while turn < LEAST_ROUNDS or time.perf_counter() < until:
        first = turn % len(clients)
        for client in [*clients[first:], *clients[:first]]:
            samples[client].append(block(client))
        turn += 1
    return Measured(line, samples)


def async_line(
    line: Line, stage: Stage, seconds: float, each: float, makers: Mapping[str, Callable[[Stage], AsyncCaller]] = ASYNC
) -> Measured:
    async def opened() -> dict[str, AsyncCaller]:
        return {name: make(stage) for name, make in makers.items()}

    with asyncio.Runner(loop_factory=LOOPS[line.loop]) as runner:
        callers = runner.run(opened())
        try:
            return rounds_of(
                line, list(callers), seconds, lambda name: runner.run(async_block(callers[name], line, each))
            )
        finally:
            for caller in callers.values():
                runner.run(caller.aclose())


def sync_line(
    line: Line, stage: Stage, seconds: float, each: float, makers: Mapping[str, Callable[[Stage], Caller]] = SYNC
) -> Measured:
    callers = {name: make(stage) for name, make in makers.items()}
    with ThreadPoolExecutor(line.at_a_time, initializer=begin_trace) as threads:
        try:
            return rounds_of(line, list(callers), seconds, lambda name: block(callers[name], line, each, threads))
        finally:
            for caller in callers.values():
                caller.close()


# --- all of them --------------------------------------------------------------------------------------


def run(lines: list[Line], seconds: float, calls: int) -> None:
    """Measure `lines` for so many seconds in all, then memory with so many calls."""
    clients = {line: len(SYNC if line.loop == "sync" else ASYNC) for line in lines}
    per_client = seconds / sum(clients.values())
    each = per_client / (ROUNDS + 1)
    with stage() as there:
        print(f"blocks of {each * 1e3:.0f} ms; under wrk, 16 at a time: {', '.join(loaded(there, 1))}\n")
        found = {}
        for line, count in clients.items():
            measured = (sync_line if line.loop == "sync" else async_line)(line, there, count * per_client, each)
            found[line] = measured
            print(measured.table(), flush=True)
        print(f"\n{'bars':<76}{'measured':>7}")
        for bar in BARS:
            if bar.line in found:
                print(bar.verdict(found[bar.line]))
        print()
        for row in memory.report(there, calls):
            print(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=150.0, help="how long it may take in all, about")
    parser.add_argument("--quick", action="store_true", help="a smoke run, too short to judge by")
    parser.add_argument("--only", default="", metavar="TEXT", help="only lines with this text, such as 'uvloop, 1 at'")
    given = parser.parse_args()
    offered = [line for line in LINES if not (given.quick and line.at_a_time == 64)]  # slow where httpx is
    lines = [line for line in offered if given.only in str(line)]
    if not lines:
        parser.error(f"--only {given.only!r}: no such line; there are: {'; '.join(map(str, offered))}")
    begin_trace()
    if given.quick:
        run(lines, 10.0, 1_000)
    else:
        run(lines, max(given.seconds - MEMORY_SECONDS, given.seconds / 3), 10_000)


if __name__ == "__main__":
    main()

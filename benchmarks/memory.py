"""Whether memory grows: 10,000 calls after warming up, then 200 connections left idle, then all of it closed.

Counted twice, each time in a process of its own: what Python has allocated, by tracemalloc, and what the process
occupies. A first client does the same before, so that what the process needs once is not taken for growth.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import uvloop

from benchmarks.callers import begin_trace, ours, ours_sync
from benchmarks.servers import TOGETHER, Stage
from meshsdk.policy.effective import DEFAULTS

__all__ = ["report"]

AT_A_TIME = 16
GROWTH = 64 * 1024  # bytes that may come and go: a handful of buffers
# Under tracemalloc, opening so many connections at once takes longer than a call may under the built-in policy.
PATIENT = replace(DEFAULTS, timeouts=replace(DEFAULTS.timeouts, request=60.0, attempt=60.0, connect=60.0))
COLUMNS = ("warm", "calls", f"{TOGETHER} idle", "closed")

Calls = Callable[[str, int, int], None]
"""So many calls of a target, so many at a time."""


def report(stage: Stage, calls: int) -> list[str]:
    """Run the kinds two by two, as time is not measured here; lines to print, in KiB."""
    kinds = [(loop, traced) for loop in ("uvloop", "asyncio", "sync") for traced in (True, False)]
    rows = [f"{f'KiB of ours; {calls:,} calls':<30}" + "".join(f"{column:>12}" for column in COLUMNS)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, max_tasks_per_child=1) as processes:
        running = [(kind, processes.submit(_measure, *kind, stage, calls)) for kind in kinds]
        rows += [_row(*kind, future.result()) for kind, future in running]
    return rows


def _row(loop: str, traced: bool, used: list[int]) -> str:
    before, warm, called, idle, closed = used
    added = called - warm, idle - called, closed - before
    verdict = ""
    if traced:
        grows = max(called - warm, closed - before) > GROWTH
        verdict = f"  {'FAIL' if grows else 'pass'}: calls and closed ≤ {GROWTH // 1024}"
    figures = f"{warm / 1024:>12,.0f}" + "".join(f"{value / 1024:>+12,.1f}" for value in added)
    return f"{loop + (', tracemalloc' if traced else ', RSS'):<30}{figures}{verdict}"


def _measure(loop: str, traced: bool, stage: Stage, calls: int) -> list[int]:
    """Bytes in use: before the client, warm, after the calls, with idle connections, after the client."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    begin_trace()
    if traced:
        tracemalloc.start()
    client = partial(_blocking, stage) if loop == "sync" else partial(_awaiting, stage, loop)
    _lifetime(client, _resident, calls // 5)
    return _lifetime(client, _allocated if traced else _resident, calls)


def _lifetime(client: Callable[[], AbstractContextManager[Calls]], used: Callable[[], int], calls: int) -> list[int]:
    found = [used()]
    with client() as call:
        call("/small", max(calls // 10, TOGETHER), AT_A_TIME)
        found.append(used())
        call("/small", calls, AT_A_TIME)
        found.append(used())
        call(f"/wait/{os.getpid()}", TOGETHER, TOGETHER)
        if (there := _sockets()) < TOGETHER:
            raise RuntimeError(f"{there} connections where {TOGETHER} were to be idle")
        found.append(used())
    return [*found, used()]


# --- clients ------------------------------------------------------------------------------------------


@contextmanager
def _awaiting(stage: Stage, loop: str) -> Iterator[Calls]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        caller = ours(stage, PATIENT)

        async def some(target: str, calls: int) -> None:
            for _ in range(calls):
                await caller.get(target)

        async def all_of(target: str, calls: int, at_a_time: int) -> None:
            await asyncio.gather(*(some(target, calls // at_a_time) for _ in range(at_a_time)))

        try:
            yield lambda *what: runner.run(all_of(*what))
        finally:
            runner.run(caller.aclose())


@contextmanager
def _blocking(stage: Stage) -> Iterator[Calls]:
    caller = ours_sync(stage, PATIENT)

    def some(target: str, calls: int) -> None:
        for _ in range(calls):
            caller.get(target)

    def all_of(target: str, calls: int, at_a_time: int) -> None:
        with ThreadPoolExecutor(at_a_time, initializer=begin_trace) as threads:
            list(threads.map(some, [target] * at_a_time, [calls // at_a_time] * at_a_time))

    try:
        yield all_of
    finally:
        caller.close()


# --- what is in use -----------------------------------------------------------------------------------


def _allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _sockets() -> int:
    """How many sockets this process has open."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue  # the directory's own descriptor, gone again
    return count

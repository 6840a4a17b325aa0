"""Where the time of one call goes, layer by layer: profile calls with py-spy, and add its samples up.

    pip install py-spy
    python benchmarks/layers.py [--seconds 10] [--at-a-time 1] [--loop uvloop|asyncio|blocking]

Starts a responder, a process that makes mesh calls to it, and py-spy on that process. A sample belongs to the innermost
frame that is of a layer: what the standard library does for httpx counts as httpx's. What is left is the loop with the
system calls, and waiting is not counted. See profile.md for what was found.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import uvloop

from benchmarks.callers import begin_trace, ours, ours_sync
from benchmarks.servers import Stage, stage

LAYERS = (
    ("httpx's own client", ("(httpx/",)),
    ("mesh: client side", ("(meshsdk/client/",)),
    ("mesh: decisions", ("(meshsdk/core/", "(meshsdk/drive")),
    ("mesh: telemetry", ("(meshsdk/telemetry/",)),
    ("wire: messages (llhttp)", ("(meshsdk/wire/http1/",)),
    ("wire: connections", ("(meshsdk/wire/",)),
)
REST = "event loop, system calls"


def layer_of(frames: list[str]) -> str:
    for frame in reversed(frames):
        for name, marks in LAYERS:
            if any(mark in frame for mark in marks):
                return name
    return REST


def added_up(samples: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        found[layer_of(stack.split(";"))] += int(count)
    return found


async def acalls(stage: Stage, at_a_time: int, seconds: float) -> int:
    begin_trace()
    caller = ours(stage)
    until = time.monotonic() + seconds

    async def calls() -> int:
        done = 0
        while time.monotonic() < until:
            await caller.get("/small")
            done += 1
        return done

    done = sum(await asyncio.gather(*(calls() for _ in range(at_a_time))))
    await caller.aclose()
    return done


def calls(stage: Stage, seconds: float) -> int:
    begin_trace()
    caller, done, until = ours_sync(stage), 0, time.monotonic() + seconds
    while time.monotonic() < until:
        caller.get("/small")
        done += 1
    caller.close()
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--at-a-time", type=int, default=1)
    parser.add_argument("--loop", choices=("uvloop", "asyncio", "blocking"), default="uvloop")
    given = parser.parse_args()
    with stage() as servers, tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "samples"
        spy = subprocess.Popen(
            [
                *(str(Path(sys.executable).with_name("py-spy")), "record", "--rate", "500", "--format", "raw"),
                *("--duration", str(int(given.seconds)), "--output", str(output), "--pid", str(os.getpid())),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wall, cpu = time.perf_counter(), time.process_time()
        if given.loop == "blocking":
            done = calls(servers, given.seconds + 2)
        else:
            new_loop = uvloop.new_event_loop if given.loop == "uvloop" else asyncio.new_event_loop
            with asyncio.Runner(loop_factory=new_loop) as runner:
                done = runner.run(acalls(servers, given.at_a_time, given.seconds + 2))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        spy.wait(30)
        found = added_up(output.read_text())
    total, per_call = found.total() or 1, cpu / done * 1e6
    print(f"{given.loop}, {given.at_a_time} at a time: {wall / done * 1e6:.0f} µs a call, {per_call:.0f} of CPU")
    for name, count in found.most_common():
        print(f"{name:<28}{count / total * 100:>6.1f} %{count / total * per_call:>8.1f} µs")


if __name__ == "__main__":
    main()

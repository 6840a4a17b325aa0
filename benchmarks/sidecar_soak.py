"""A pair of our sidecars at half load for minutes while everything around it changes: no request may fail.

    python benchmarks/sidecar_soak.py [--minutes 10] [--rate REQUESTS_PER_SECOND]

Requests come in at random moments, half as many as the pair takes at most. Meanwhile the policy of the called service
changes every second, in all sections, and further instances of it, each an nginx and a sidecar of its own, come, serve
for a few seconds, and go by SIGTERM. Every 10 s a line says what became of the requests and what memory the two steady
sidecars take. In the end a policy that forbids everything must be obeyed: the changes were really followed. The exit
code is 1 if a request failed, memory grew, a policy was not obeyed, or an instance that came got no request.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
import signal
import statistics
import sys
import time
import urllib.request
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.load import Aim, Load, build_paced, full, paced_command, read_paced
from benchmarks.processes import usage
from benchmarks.servers import SERVER_CORE, on_core
from benchmarks.ways import PAIR, Ground, Way, ask, ground, inbound, nginx, start
from meshsdk.policy.document import parse
from meshsdk_registry import Consul, Health
from tests.real_consul import free_ports
from tests.wire.real_servers import Started

T = TypeVar("T")

EVERY = 10  # seconds from line to line
CONNECTIONS = 32
STAY = 5.0  # seconds for which an instance serves
MOST_GROWTH = 1.05  # of memory, from the second quarter of the lines to the last; less than 2 MiB is nothing
LEAST_LINES = 8

_RULES = "authorization: {default: deny, rules: [{allow: {from: [web], methods: [%s]}}]}"
_CHANGES = (
    "timeouts: {request: 14s, attempt: 6s, connect: 2s}",
    "retries: {attempts: 4, budget: {ratio: 0.3}}",
    "load_balancing: {algorithm: least-request}",
    "limits: {max_requests: 2048, max_pending: 512, max_connections_per_endpoint: 128}",
    "circuit_breaker: {consecutive_failures: 10, open_for: 2s}",
    "outlier_detection: {consecutive_failures: 10, interval: 5s}",
    "load_balancing: {algorithm: round-robin}",
    "timeouts: {idle: 2m}",
)


def documents() -> Iterator[bytes]:
    """Policies of `api` over and over that all let `web` read; checked before the first."""
    found = [document(f"{_RULES % methods}\n{change}\n") for methods in ("GET", "GET, POST") for change in _CHANGES]
    return itertools.cycle(found)


def document(sections: str) -> bytes:
    """A policy of `api` with these sections; raises `PolicyError`."""
    text = f"version: 1\ntls: {{mode: strict}}\n{sections}"
    parse(text, "mesh/policy/api")
    return text.encode()


@dataclass
class Soak:
    """What has happened so far.

    Attributes:
        served: requests that each instance got that has come and gone.
        memory: MiB of the two steady sidecars, line by line.
    """

    way: Way
    there: Ground
    loads: list[Load] = field(default_factory=list)
    changes: int = 0
    served: list[int] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)

    def line(self, load: Load) -> str:
        """Book what the last seconds brought; one row."""
        caller, called = (usage([pid]).resident for pid in reversed(self.way.pids))
        self.loads.append(load)
        self.memory.append((caller, called))
        figures = f"{load.rate:>11,.0f}{load.p50 * 1e3:>9.2f}{load.p99 * 1e3:>9.2f}{load.failed:>8}"
        sizes = f"{caller:>13.1f}{called:>13.1f}"
        return f"{len(self.loads) * EVERY:>6}{figures}{sizes}{self.changes:>10}{len(self.served):>11}  {load.why}"

    def growth(self) -> float:
        """How many times the memory of its second quarter the run took in its last; the worse of the two sidecars."""
        quarter = len(self.memory) // 4
        return max(_grown(sizes[quarter : 2 * quarter], sizes[-quarter:]) for sizes in zip(*self.memory, strict=True))


def _grown(before: Sequence[float], after: Sequence[float]) -> float:
    was, is_now = statistics.median(before), statistics.median(after)
    return is_now / was if is_now - was > 2 else 1.0


# --- what goes on meanwhile ---------------------------------------------------------------------------


async def change_policies(soak: Soak, consul: Consul) -> None:
    """Write another policy every second."""
    begun = time.monotonic()
    for turn, text in enumerate(documents()):
        await asyncio.sleep(max(0.0, begun + turn - time.monotonic()))
        await consul.put("mesh/policy/api", text)
        soak.changes += 1


async def come_and_go(soak: Soak, consul: Consul) -> None:
    """Start an instance, let it serve, end it, again and again."""
    for number in itertools.count():
        app, *ports = free_ports(4)
        with ExitStack() as stack:
            sidecar = await to_its_end(asyncio.to_thread(begin_instance, stack, soak.there, number, app, ports))
            await until_listed(consul, ports[0], listed=True)
            await asyncio.sleep(STAY)
            sidecar.process.terminate()
            await to_its_end(asyncio.to_thread(sidecar.process.wait, 60))
            await until_listed(consul, ports[0], listed=False)
            soak.served.append(await asyncio.to_thread(served, app))


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Wait for a thread even when cancelled: what it starts must be known to whoever ends it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)  # the one that counts is the cancellation
        raise


def begin_instance(stack: ExitStack, there: Ground, number: int, app: int, ports: Sequence[int]) -> Started:
    """An nginx, and beside it a sidecar, which is returned."""
    folder = there.folder / f"instance-{number}"
    stack.enter_context(nginx(folder, app)).ready()
    command = there.sidecar(folder.name, inbound(app, *ports))
    with on_core(SERVER_CORE):
        sidecar = stack.enter_context(Started("sidecar", command, ports[0], folder))
    sidecar.ready()
    return sidecar


async def until_listed(consul: Consul, port: int, *, listed: bool) -> None:
    """Wait until callers are told of the instance at this port, or no longer."""
    async with asyncio.timeout(30):
        while True:
            instances = (await consul.instances("api")).value
            if listed == any(one.port == port and one.health is Health.PASSING for one in instances):
                return
            await asyncio.sleep(0.1)


def served(app: int) -> int:
    """How many requests this nginx has got, without this one."""
    with urllib.request.urlopen(f"http://127.0.0.1:{app}/served", timeout=5) as answer:
        counts = re.search(r"^ \d+ \d+ (\d+)", answer.read().decode(), re.MULTILINE)
    assert counts, "nginx's stub_status has another form"
    return int(counts[1]) - 1


async def obeyed(consul: Consul, aim: Aim) -> bool:
    """Whether a policy that forbids everything is in force within 5 s."""
    await consul.put("mesh/policy/api", document("authorization: {default: deny}\n"))
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if (await asyncio.to_thread(ask, aim))[0] == 403:
            return True
        await asyncio.sleep(0.1)
    return False


# --- the run ------------------------------------------------------------------------------------------


async def run(soak: Soak, program: Path, rate: float, seconds: float) -> bool:
    """Load the pair while all that goes on; whether the policies were followed to the end.

    Raises:
        CancelledError: SIGTERM came, and everything has ended.
        ExceptionGroup: a change could not be made, an instance did not come or go.
    """
    if (this := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    aim = soak.way.aim("/1k")
    command = paced_command(program, aim, CONNECTIONS, rate, seconds=seconds, every=EVERY)
    async with Consul(soak.there.consul) as consul:
        load = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            async with asyncio.TaskGroup() as going:
                meanwhile = [going.create_task(what(soak, consul)) for what in (change_policies, come_and_go)]
                assert load.stdout is not None
                async for line in load.stdout:
                    print(soak.line(read_paced(line.decode())), flush=True)
                for task in meanwhile:
                    task.cancel()
        finally:
            if load.returncode is None:
                load.kill()
            await load.wait()
        return await obeyed(consul, aim)


def verdicts(soak: Soak, followed: bool) -> Iterator[tuple[str, str, bool | None]]:
    """What was to hold, what was found, whether it held; None where the run was too short to tell."""
    done, failed = sum(load.done for load in soak.loads), sum(load.failed for load in soak.loads)
    yield "failed requests: 0", f"{failed} of {done + failed:,}", not failed and done > 0
    if len(soak.memory) < LEAST_LINES:
        yield f"memory ≤ {MOST_GROWTH} × before", f"needs {LEAST_LINES * EVERY} s", None
    else:
        yield f"memory ≤ {MOST_GROWTH} × before", f"{soak.growth():.3f}", soak.growth() <= MOST_GROWTH
    yield "policies followed to the end", f"after {soak.changes} changes", followed
    least = min(soak.served, default=0)
    told = f"{len(soak.served)} came and went, the least busy served {least:,}"
    yield "instances get requests", told, least > 0 if soak.served else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, help="requests per second; half of what wrk gets through, if left out")
    given = parser.parse_args()
    if given.minutes <= 0 or (given.rate is not None and given.rate <= 0):
        parser.error("--minutes and --rate are above 0")
    with ground() as there, ExitStack() as stack:
        way = start(stack, there, "ours", PAIR)
        program = build_paced(there.folder)
        rate = given.rate or full(way.aim("/1k"), CONNECTIONS, 5).rate / 2
        soak = Soak(way, there)
        print(f"{given.minutes:g} minutes at {rate:,.0f} requests per second on {CONNECTIONS} connections")
        heads = f"{'p50 ms':>9}{'p99 ms':>9}{'failed':>8}{'caller MiB':>13}{'called MiB':>13}"
        print(f"{'s':>6}{'requests/s':>11}{heads}{'policies':>10}{'instances':>11}", flush=True)
        try:
            followed = asyncio.run(run(soak, program, rate, given.minutes * 60))
        except asyncio.CancelledError:
            return 128 + signal.SIGTERM
    found = list(verdicts(soak, followed))
    for what, value, held in found:
        print(f"{what:<32}{value:<48}{'not judged' if held is None else 'pass' if held else 'FAIL'}")
    return 1 if any(held is False for _, _, held in found) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Instances restarted one after the other under load: how many calls fail.

One service on a real Consul: three FastAPI instances under uvicorn and one Flask instance under gunicorn with four
workers. A steady stream of calls while each instance in turn is ended, stays away for a moment and comes back, first
with SIGTERM (GET and POST calls), then with SIGKILL (GET calls only: a POST that was written when its server died may
have been carried out, and nobody may send it again).

    python benchmarks/rolling_restart.py --seconds 60 --rate 50

Prints one line per run; the exit code is 1 if a call failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from meshsdk import Mesh
from meshsdk_registry import Consul, Health
from tests.real_consul import RealConsul, free_ports

APPS = Path(__file__).parent / "apps"
AWAY = 1.0  # seconds between the end of an instance and its next start


@dataclass(slots=True)
class Fleet:
    """The four instances as processes."""

    consul_url: str
    folder: Path
    commands: dict[int, list[str]] = field(default_factory=dict)
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        *uvicorns, gunicorn = free_ports(4)
        for port in uvicorns:
            self.commands[port] = ["uvicorn", "shop_fastapi:app", "--port", str(port), "--log-level", "warning"]
        bind = f"127.0.0.1:{gunicorn}"
        self.commands[gunicorn] = ["gunicorn", "shop_flask:app", "--bind", bind, "--workers", "4", "--threads", "4"]

    def start(self, port: int) -> None:
        environment = os.environ | {
            "CONSUL_HTTP_ADDR": self.consul_url,
            "MESH_PORT": str(port),
            "MESH_ADDRESS": "127.0.0.1",
            "MESH_STATE_DIR": str(self.folder / f"state-{port}"),
            "MESH_RUNTIME_DIR": str(self.folder / "run"),
        }
        with (self.folder / f"{port}.log").open("ab") as log:
            self.processes[port] = subprocess.Popen(
                [sys.executable, "-m", *self.commands[port]],
                cwd=APPS,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self, port: int, number: signal.Signals) -> None:
        """SIGTERM goes to the server, as systemd or Nomad send it; SIGKILL to all its processes, as a dying host's."""
        process = self.processes[port]
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.wait(20)

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


@dataclass(slots=True)
class Outcome:
    """What a run's calls brought."""

    calls: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    servers: Counter[str] = field(default_factory=Counter)
    restarts: int = 0


async def run(fleet: Fleet, http: httpx.AsyncClient, number: signal.Signals, seconds: float, rate: float) -> Outcome:
    """Call at a steady rate for `seconds` while instances are restarted one after the other."""
    outcome = Outcome()
    methods = ("GET", "POST") if number == signal.SIGTERM else ("GET",)
    restarts = asyncio.create_task(restart_in_turn(fleet, number, outcome))
    started = time.monotonic()
    async with asyncio.TaskGroup() as calls:
        for turn in range(int(seconds * rate)):
            await asyncio.sleep(max(0.0, started + turn / rate - time.monotonic()))
            calls.create_task(one_call(http, methods[turn % len(methods)], outcome))
    restarts.cancel()
    await asyncio.gather(restarts, return_exceptions=True)
    await all_passing(fleet)
    return outcome


async def one_call(http: httpx.AsyncClient, method: str, outcome: Outcome) -> None:
    outcome.calls += 1
    try:
        answer = await http.request(method, "http://shop/work")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed call
        outcome.failed[f"{method} {type(error).__name__}: {error}"] += 1
        return
    if answer.status_code != 200:
        outcome.failed[f"{method} status {answer.status_code}"] += 1
        return
    outcome.servers[answer.json()["server"]] += 1


async def restart_in_turn(fleet: Fleet, number: signal.Signals, outcome: Outcome) -> None:
    while True:
        for port in list(fleet.commands):
            ending = asyncio.create_task(asyncio.to_thread(fleet.end, port, number))
            try:
                await asyncio.shield(ending)
                await asyncio.sleep(AWAY)
            finally:  # also when the run is over: the next one needs the instance
                await ending
                fleet.start(port)
            outcome.restarts += 1
            await all_passing(fleet)


async def all_passing(fleet: Fleet) -> None:
    """Wait until Consul lists the four instances, and nothing else, as passing, and each says itself that it is ready.

    Consul alone does not know: an instance that was killed stays passing until its TTL is over.
    """
    async with Consul(fleet.consul_url) as consul, httpx.AsyncClient() as plain:
        for _ in range(600):
            instances = (await consul.instances("shop")).value
            # An id ends in the port of the application; the one callers are given is the mesh's own.
            found = (instance.id for instance in instances if instance.health is Health.PASSING)
            passing = sorted(int(name.rpartition("-")[2]) for name in found)
            if passing == sorted(fleet.commands) and all([await ready(plain, port) for port in passing]):
                return
            await asyncio.sleep(0.05)
    raise RuntimeError(f"not all instances came back: {instances}")


async def ready(plain: httpx.AsyncClient, port: int) -> bool:
    try:
        return (await plain.get(f"http://127.0.0.1:{port}/-/mesh/ready")).status_code == 200
    except httpx.TransportError:
        return False


async def main(seconds: float, rate: float) -> int:
    with tempfile.TemporaryDirectory() as name, RealConsul() as consul:
        fleet = Fleet(consul.url, Path(name))
        try:
            for port in fleet.commands:
                fleet.start(port)
            await all_passing(fleet)
            mesh = Mesh("caller", consul_url=consul.url, state_dir=Path(name) / "state")
            async with mesh, mesh.async_client() as http:
                failed = 0
                for number in (signal.SIGTERM, signal.SIGKILL):
                    outcome = await run(fleet, http, number, seconds, rate)
                    failed += report(number, outcome)
        finally:
            fleet.close()
    return 1 if failed else 0


def report(number: signal.Signals, outcome: Outcome) -> int:
    failed = sum(outcome.failed.values())
    shares = ", ".join(f"{server} {count}" for server, count in sorted(outcome.servers.items()))
    print(f"{number.name}: {outcome.calls} calls, {outcome.restarts} restarts, {failed} failed  ({shares})", flush=True)
    for text, count in outcome.failed.most_common(5):
        print(f"  {count} × {text}")
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each of the two runs")
    parser.add_argument("--rate", type=float, default=50.0, help="calls per second")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.seconds, arguments.rate)))

"""Sidecars and the apps behind them restarted one after the other under load: how many calls fail.

Three instances of one service, each a Node app and a sidecar. Calls come at a steady rate, in turn GET and POST, from a
client of the SDK and from a client behind a sidecar of its own. Meanwhile SIGTERM goes to one process after the other:
a sidecar whose app lives on, an app whose sidecar lives on, and a sidecar with the app as its child (`--exec`). An app
that is ended beside its sidecar says so on its health page first: nobody else could tell callers in time.

    python benchmarks/rolling_sidecars.py --seconds 60 --rate 100

Prints one line per kind of restart; the exit code is 1 if a call failed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from meshsdk import Mesh
from meshsdk_registry import Consul, Health
from tests.real_consul import RealConsul, free_ports

__all__ = ["KINDS", "Fleet", "Outcome", "fleet", "roll"]

APP = Path(__file__).parent / "apps" / "shop_node.js"
AWAY = 0.5  # seconds between the end of a process and its next start
NOTICE = 2.0  # seconds between an app's word that it ends and its end: two looks of the sidecar, and Consul's news
HEALTH = {"http": "/healthz", "interval": "200ms", "unhealthy": 2}
KINDS = ("sidecar", "app", "both")


@dataclass(slots=True)
class Outcome:
    """What the calls of a run brought."""

    calls: int = 0
    restarts: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    servers: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class Instance:
    """An app and its sidecar, as two processes or, for `both`, as one and its child."""

    app: int
    inbound: int
    admin: int
    outbound: int
    processes: dict[str, subprocess.Popen[bytes]] = field(init=False, default_factory=dict)


class Fleet:
    """All processes of a run.

    Args:
        consul: its URL.
        folder: for files and logs.
        together: start the apps as their sidecars' children.
        size: how many instances.
        notice: seconds, as `NOTICE`.
    """

    def __init__(self, consul: str, folder: Path, *, together: bool, size: int = 3, notice: float = NOTICE) -> None:
        self.consul, self.folder, self.together = consul, folder, together
        way_out, admin, *ports = free_ports(2 + 4 * size)
        self.instances = [Instance(*ports[4 * number : 4 * number + 4]) for number in range(size)]
        self._notice = 0 if together else int(notice * 1000)
        config = {"service": {"name": "far"}, "outbound": {"port": way_out}, "admin": {"port": admin}}
        self.far = f"http://127.0.0.1:{way_out}/"
        self._caller = self._sidecar("far", config)
        for instance, name in itertools.product(self.instances, self.parts):
            self.start(instance, name)

    @property
    def parts(self) -> tuple[str, ...]:
        """What an instance's processes are called."""
        return ("both",) if self.together else ("app", "sidecar")

    def start(self, instance: Instance, name: str) -> None:
        """Start one process of an instance."""
        node = [shutil.which("node") or "node", str(APP), str(instance.app), str(self._notice)]
        if name == "app":
            instance.processes[name] = self._begin(f"app-{instance.app}", node)
            return
        config = {
            "service": {"name": "shop", "port": instance.app, "health": HEALTH},
            "inbound": {"address": "127.0.0.1", "port": instance.inbound},
            "outbound": {"port": instance.outbound},
            "admin": {"port": instance.admin},
            "drain": {"wait": "500ms", "app": "5s" if name == "both" else "0s"},
        }
        command = ["--exec", "--", *node] if name == "both" else []
        instance.processes[name] = self._sidecar(f"shop-{instance.app}", config, *command)

    def end(self, instance: Instance, name: str) -> None:
        """End one by SIGTERM; raises `RuntimeError` if it did not end well."""
        process = instance.processes[name]
        process.terminate()
        if code := process.wait(30):
            raise RuntimeError(f"{name} of {instance.app} has ended with {code}")

    def close(self) -> None:
        """End all; the sidecars by SIGTERM, as they take their instances out of Consul."""
        running = [(name, process) for one in self.instances for name, process in one.processes.items()]
        sidecars = [self._caller, *(process for name, process in running if name != "app")]
        for process in sidecars:
            process.terminate()
        for process in sidecars:
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
        for process in (*sidecars, *(process for name, process in running if name == "app")):
            process.kill()  # nothing, if it has ended
            process.wait()

    def logs(self) -> str:
        """What all have written."""
        return "\n".join(f"--- {log.name}\n{log.read_text()}" for log in sorted(self.folder.glob("*.log")))

    def _sidecar(self, name: str, config: dict[str, Any], *more: str) -> subprocess.Popen[bytes]:
        file = self.folder / f"{name}.yaml"
        file.write_text(json.dumps(config))  # which is YAML as well
        return self._begin(name, [sys.executable, "-P", "-m", "meshsdk_sidecar", "-c", str(file), *more])

    def _begin(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "CONSUL_HTTP_ADDR": self.consul,
            "MESH_STATE_DIR": str(self.folder / f"state-{name}"),
            "MESH_RUNTIME_DIR": str(self.folder / "run"),
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)


@contextmanager
def fleet(consul: str, folder: Path, *, together: bool, **more: Any) -> Iterator[Fleet]:
    """A fleet that ends with the block; its arguments are those of `Fleet`."""
    with ExitStack() as stack:
        found = Fleet(consul, folder, together=together, **more)
        stack.callback(found.close)
        yield found


async def all_serve(found: Fleet) -> None:
    """Wait until Consul lists all instances, and nothing else, as passing."""
    wanted = sorted(instance.inbound for instance in found.instances)
    async with Consul(found.consul) as consul:
        for _ in range(600):
            instances = (await consul.instances("shop")).value
            if sorted(one.port for one in instances if one.health is Health.PASSING) == wanted:
                return
            await asyncio.sleep(0.05)
    raise RuntimeError(f"not all instances serve: {instances}")


# --- a run --------------------------------------------------------------------------------------------


async def roll(found: Fleet, kinds: Sequence[str], rate: float, enough: Callable[[Outcome], bool]) -> Outcome:
    """Call at a steady rate while processes of some kinds are restarted in turn, until it is enough.

    Args:
        enough: asked after each restart.
    """
    await all_serve(found)
    outcome = Outcome()
    mesh = Mesh("near", consul_url=found.consul, state_dir=found.folder / "state-near")
    async with mesh, mesh.async_client() as near, httpx.AsyncClient(trust_env=False, timeout=20) as far:
        over = asyncio.Event()
        ways = itertools.cycle(
            partial(one_call, http, f"{caller} {method}", method, url, outcome)
            for method in ("GET", "POST")
            for caller, http, url in (("SDK", near, "http://shop/"), ("sidecar", far, found.far))
        )
        load = asyncio.create_task(call_until(over, rate, ways))
        try:
            await restart_in_turn(found, kinds, outcome, enough)
        finally:
            over.set()
            await load
    return outcome


async def call_until(over: asyncio.Event, rate: float, ways: Iterator[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    began = time.monotonic()
    async with asyncio.TaskGroup() as calls:
        for turn in itertools.count():
            await asyncio.sleep(max(0.0, began + turn / rate - time.monotonic()))
            if over.is_set():
                return
            calls.create_task(next(ways)())


async def one_call(http: httpx.AsyncClient, name: str, method: str, url: str, outcome: Outcome) -> None:
    outcome.calls += 1
    body = b"x" * 1000 if method == "POST" else None
    try:
        answer = await http.request(method, url, headers={"host": "shop"}, content=body)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed call
        outcome.failed[f"{name}: {type(error).__name__}: {error}"] += 1
        return
    if answer.status_code == 200:
        outcome.servers[answer.json()["server"]] += 1
    else:
        outcome.failed[f"{name}: {answer.status_code} {answer.text.strip()}"] += 1


async def restart_in_turn(
    found: Fleet, kinds: Sequence[str], outcome: Outcome, enough: Callable[[Outcome], bool]
) -> None:
    for instance, name in zip(itertools.cycle(found.instances), itertools.cycle(kinds), strict=False):
        await asyncio.to_thread(found.end, instance, name)
        await asyncio.sleep(AWAY)
        found.start(instance, name)
        outcome.restarts += 1
        await all_serve(found)
        if enough(outcome):
            return


async def main(seconds: float, rate: float) -> int:
    failed = 0
    with RealConsul() as consul:
        for kind in KINDS:
            with (
                tempfile.TemporaryDirectory() as folder,
                fleet(consul.url, Path(folder), together=kind == "both") as found,
            ):
                failed += report(kind, await roll(found, [kind], rate, partial(over_at, time.monotonic() + seconds)))
    return 1 if failed else 0


def over_at(end: float, _: Outcome) -> bool:
    return time.monotonic() > end


def report(kind: str, outcome: Outcome) -> int:
    failed = outcome.failed.total()
    shares = ", ".join(f"{count}" for _, count in sorted(outcome.servers.items()))
    words = f"{outcome.calls} calls, {outcome.restarts} restarts, {failed} failed"
    print(f"SIGTERM to {kind}: {words}  (served by each: {shares})", flush=True)
    for text, count in outcome.failed.most_common(5):
        print(f"  {count} × {text}")
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each of the three runs, at least")
    parser.add_argument("--rate", type=float, default=100.0, help="calls per second")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.seconds, arguments.rate)))

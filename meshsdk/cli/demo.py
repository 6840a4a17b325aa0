"""`meshsdk demo`: the mesh at work in half a minute, on the embedded registry, with real services and real crashes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from meshsdk.cli.console import Exit, fail, out
from meshsdk.cli.demo_stage import Stage
from meshsdk.errors import DeadlineExceeded, MeshError
from meshsdk.mesh import Mesh
from meshsdk_registry import Consul

if TYPE_CHECKING:
    import httpx

__all__ = ["demo"]

CALLS = 300
AT_ONCE = 6
POLICY = b"""version: 1
timeouts: {request: 60ms}
"""


class DemoFailed(MeshError):
    """The demo saw something other than what it promises."""


def demo() -> None:
    """Show discovery, balancing, a crash without a failed call, a live policy change, and life without Consul."""
    started = time.monotonic()
    logging.getLogger("meshsdk").addHandler(logging.NullHandler())  # refusals are part of the story, told below
    try:
        with Stage() as stage:
            asyncio.run(_story(stage))
    except DemoFailed as error:
        fail(str(error), "this should not happen on any machine; the lines above say how far it came")
        raise typer.Exit(Exit.PROBLEM) from error
    out.print(f"\n[bold green]done[/] in {time.monotonic() - started:.0f} s. What to try next:")
    out.print("  meshsdk dev                          a registry for this machine")
    out.print("  examples/fastapi, examples/flask     two lines each start a service")
    out.print("  meshsdk services · endpoints NAME    what callers see")
    out.print("  meshsdk policy apply FILE            steer every process, live (docs/policy.md)")


@dataclass(slots=True)
class Load:
    """What a number of calls brought: by instance, and what failed."""

    by_port: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        shares = "  ".join(f":{port} {count}" for port, count in sorted(self.by_port.items()))
        return f"{len(self.seconds)} calls  {shares}  [bold]{len(self.errors)} failed[/]"


async def _story(stage: Stage) -> None:
    mesh = Mesh("demo", consul_url=stage.agent.url, state_dir=stage.folder / "state", runtime_dir=stage.folder / "run")
    async with mesh, mesh.async_client() as http:
        ports = await _discovery(stage, http)
        await _balancing(http, ports)
        await _crash(stage, http, ports[0])
        await _policy(stage, http)
        await _without_consul(stage, mesh, http)


async def _discovery(stage: Stage, http: httpx.AsyncClient) -> list[int]:
    _title("Discovery", f"an embedded registry at {stage.agent.url}, 3 × payments (Flask), 1 × checkout (FastAPI)")
    payments = [stage.start_flask() for _ in range(3)]
    checkout = stage.start_fastapi()
    seen: Counter[tuple[str, int]] = Counter()

    async def all_seen() -> bool:
        for service in ("payments", "checkout"):
            try:
                answer = (await http.get(f"http://{service}/whoami")).json()
            except MeshError:
                return False
            seen[answer["service"], answer["port"]] += 1
        return len(seen) == len(payments) + 1

    await _until(all_seen, stage, "the services are found by name", 30)
    _line(f"found by name: payments at {', '.join(f':{port}' for port in payments)}, checkout at :{checkout}")
    answer = (await http.get("http://checkout/buy/7")).raise_for_status().json()
    _line(f"GET http://checkout/buy/7 → payments → checkout: charged {answer['payment']['charged']}")
    return payments


async def _balancing(http: httpx.AsyncClient, ports: list[int]) -> None:
    _title("Balancing", "power of two choices by latency (peak EWMA)")
    load = await _calls(http)
    _line(str(load))
    if load.errors or set(load.by_port) != set(ports):
        raise DemoFailed(f"expected answers from {ports} and no failure, got {load}: {load.errors[:3]}")


async def _crash(stage: Stage, http: httpx.AsyncClient, port: int) -> None:
    _title("A crash", f"kill -9 of payments at :{port} while {CALLS} calls are made")
    calls = asyncio.ensure_future(_calls(http))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(stage.kill, port)
    load = await calls
    _line(str(load))
    after = await _calls(http)
    _line(f"{after}  (routed around)")
    if load.errors or after.errors:
        raise DemoFailed(f"calls failed: {(load.errors + after.errors)[:3]}")


async def _policy(stage: Stage, http: httpx.AsyncClient) -> None:
    _title("Policy, live", "KV mesh/policy/payments ← timeouts: {request: 60ms}, against a handler that takes 200 ms")
    (await http.get("http://payments/slow?seconds=0.2")).raise_for_status()
    _line("before: 200 after 200 ms")
    written = time.monotonic()
    async with Consul(stage.agent.url) as consul:
        await consul.put("mesh/policy/payments", POLICY)
        obeyed, error = await _first_obeying(http)
        await consul.delete("mesh/policy/payments")
    _line(f"in force {1000 * (obeyed - written):.0f} ms after the write: {error}")
    if obeyed - written > 1:
        raise DemoFailed(f"the change took {obeyed - written:.2f} s; the promise is under 1 s")


async def _first_obeying(http: httpx.AsyncClient) -> tuple[float, DeadlineExceeded]:
    """Start a call every 20 ms until one ends by the new deadline; when that one was started is the answer."""
    obeyed: asyncio.Future[tuple[float, DeadlineExceeded]] = asyncio.get_running_loop().create_future()

    async def call() -> None:
        started = time.monotonic()
        try:
            await http.get("http://payments/slow?seconds=0.2")
        except DeadlineExceeded as error:
            if not obeyed.done():
                obeyed.set_result((started, error))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(100):
            tasks.create_task(call())
            await asyncio.wait([obeyed], timeout=0.02)
            if obeyed.done():
                return obeyed.result()
    raise DemoFailed("no call obeyed the new policy within 2 s")


async def _without_consul(stage: Stage, mesh: Mesh, http: httpx.AsyncClient) -> None:
    _title("Without Consul", "the registry is stopped; calls go on with what is known")
    await asyncio.to_thread(stage.agent.stop)

    async def noticed() -> bool:
        return not any(status.connected for status in mesh.status())

    await _until(noticed, stage, "the registry's absence is noticed", 10)
    load = await _calls(http)
    age = max(status.age for status in mesh.status())
    _line(f"{load}  (answers of the registry are {age:.1f} s old)")
    await asyncio.to_thread(stage.agent.start)

    async def back() -> bool:
        return all(status.connected for status in mesh.status())

    await _until(back, stage, "the registry is back", 15)
    _line("registry back, watched again")
    if load.errors:
        raise DemoFailed(f"calls failed without the registry: {load.errors[:3]}")


async def _calls(http: httpx.AsyncClient) -> Load:
    """Make `CALLS` calls to payments, `AT_ONCE` at a time."""
    load = Load()

    async def some(count: int) -> None:
        for _ in range(count):
            started = time.monotonic()
            try:
                answer: dict[str, Any] = (await http.get("http://payments/whoami")).raise_for_status().json()
                load.by_port[answer["port"]] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed call, and the demo's to tell
                load.errors.append(f"{type(error).__name__}: {error}")
            load.seconds.append(time.monotonic() - started)

    await asyncio.gather(*(some(CALLS // AT_ONCE) for _ in range(AT_ONCE)))
    return load


async def _until(condition: Callable[[], Awaitable[bool]], stage: Stage, what: str, seconds: float) -> None:
    """Wait until the condition holds, or fail with what the services that ended have written."""
    end = time.monotonic() + seconds
    while not await condition():
        stopped = stage.stopped()
        if stopped:
            port, log = next(iter(stopped.items()))
            raise DemoFailed(f"the service at :{port} ended:\n{log}")
        if time.monotonic() > end:
            raise DemoFailed(f"waited {seconds:.0f} s, and it is not so that {what}")
        await asyncio.sleep(0.05)


def _title(name: str, what: str) -> None:
    out.print(f"\n[bold cyan]{name}[/]  {what}")


def _line(text: str) -> None:
    out.print(f"  {text}")

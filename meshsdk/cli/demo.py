"""`meshsdk demo`: the mesh at work in some seconds, on the embedded registry, with real services and real crashes."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import typer
from rich.text import Text

from meshsdk.cli.console import Exit, clean, codes, fail, out, part_of
from meshsdk.cli.demo_load import CALLS, Load, first_status, first_timeout, load_of
from meshsdk.errors import ConfigError, MeshError
from meshsdk.mesh import Mesh
from meshsdk_registry import Consul, RegistryError

if TYPE_CHECKING:
    from meshsdk.cli.demo_stage import Stage

__all__ = ["EXITS", "DemoFailed", "demo"]

EXITS = codes("all went as promised", "something did not; the last lines say what", consul=False).rstrip(".") + (
    "; 130 interrupted. Whatever happens, no process and no file is left behind."
)
KEY = "mesh/policy/payments"
POLICY = "{version: 1, timeouts: {request: 60ms}}"
PROMISE = 1.0
"""Seconds within which a policy change is obeyed."""

NEXT = (
    ("meshsdk dev", "a registry for this machine; then, in other terminals:"),
    ("examples/fastapi, examples/flask", "two services, two lines each to start them"),
    ("meshsdk services · endpoints NAME", "what callers see, and which policy they obey"),
    ("meshsdk policy apply FILE", "steer every process while it runs (docs/policy.md)"),
    ("meshsdk check", "what is wrong between this machine and Consul"),
)


class DemoFailed(MeshError):
    """The demo saw something other than what it promises."""


def demo() -> None:
    """Show discovery, balancing, a crash without a failed call, live policy, identities, and life without Consul."""
    with part_of("examples"):
        from meshsdk.cli.demo_stage import Stage
    started = time.monotonic()
    logging.getLogger("meshsdk").addHandler(logging.NullHandler())  # refusals are part of the story, told below
    out.print(Text("Real services, a registry that speaks Consul's API and a crash, all on this machine.", "bold"))
    try:
        with _ended_by_signals(), Stage() as stage:
            asyncio.run(_story(stage))
    except ConfigError:
        raise
    except (MeshError, RegistryError, httpx.HTTPError, OSError) as error:
        fail(_reason(error), "the lines above say how far it came; this should not happen on any machine")
        raise typer.Exit(Exit.PROBLEM) from error
    out.print(Text.assemble(("\nAll as promised", "bold green"), f", in {time.monotonic() - started:.0f} s. Next:"))
    for command, what in NEXT:
        _line(command, what, width=36)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does: everything is put away first."""
    numbers = (signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "SIGHUP") else (signal.SIGTERM,)
    before = {number: signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _story(stage: Stage) -> None:
    mesh = Mesh("demo", consul_url=stage.agent.url, state_dir=stage.folder / "state", runtime_dir=stage.folder / "run")
    async with mesh, mesh.async_client() as http:
        ports = await _discovery(stage, mesh, http)
        await _balancing(http, ports)
        await _crash(stage, http, ports)
        await _policy(stage, http)
        await _identity(stage, mesh, http)
        await _without_consul(stage, mesh, http)


async def _discovery(stage: Stage, mesh: Mesh, http: httpx.AsyncClient) -> set[int]:
    _title("1 Discovery", f"services register in Consul and find each other by name ({stage.agent.url})")
    wanted = {
        "payments": {stage.start_flask() for _ in range(3)},
        "checkout": {stage.mesh_port(stage.start_fastapi())},
    }

    async def all_found() -> bool:
        for service in wanted:
            await _asked(http, service)
        return _found(mesh) == wanted

    await _until(all_found, stage, "all services are found by name", 30)
    found = _found(mesh)
    _line("payments", f"{len(found['payments'])} instances at {_ports(found['payments'])} (Flask, gunicorn)")
    _line("checkout", f"{len(found['checkout'])} instance at {_ports(found['checkout'])} (FastAPI, uvicorn)")
    answer = (await http.get("http://checkout/buy/7")).raise_for_status().json()
    charged = answer["payment"]["charged"]
    _line("one call", f"http://checkout/buy/7 → payments → checkout: charged {charged}")
    return found["payments"]


async def _asked(http: httpx.AsyncClient, service: str) -> None:
    """Call once, so that the service is watched; nobody may be there yet."""
    try:
        await http.get(f"http://{service}/whoami")
    except MeshError:
        return


def _found(mesh: Mesh) -> dict[str, set[int]]:
    """The ports that callers go to, as discovered."""
    return {status.service: {each.port for each in status.endpoints if each.healthy} for status in mesh.status()}


async def _balancing(http: httpx.AsyncClient, ports: set[int]) -> None:
    _title("2 Balancing", "each call to the faster of two random instances (peak EWMA)")
    load = _shown(await load_of(http))
    answered = set(load.by_port)
    if not answered <= ports or len(answered) < 2:  # one that was slow a moment ago rightly gets none for some seconds
        raise DemoFailed(f"answers came from {_ports(answered)} instead of {_ports(ports)}")


async def _crash(stage: Stage, http: httpx.AsyncClient, ports: set[int]) -> None:
    victim = min(ports)
    _title("3 A crash", f"kill -9 of payments at :{victim} in the middle of {CALLS} calls")
    calls = asyncio.ensure_future(load_of(http))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(stage.kill, victim)
    _shown(await calls)
    load = _shown(await load_of(http), "  routed around it")
    if victim in load.by_port:
        raise DemoFailed(f"answers still came from :{victim}, which is dead")


async def _policy(stage: Stage, http: httpx.AsyncClient) -> None:
    _title("4 Policy, live", "one write in Consul's KV steers every running process")
    slow = "http://payments/slow?seconds=0.2"
    started = time.monotonic()
    (await http.get(slow)).raise_for_status()
    _line("before", f"{slow} answers after {1000 * (time.monotonic() - started):.0f} ms")
    async with Consul(stage.agent.url) as consul:
        written = time.monotonic()
        await consul.put(KEY, POLICY.encode())
        found = await first_timeout(http, slow)
        await consul.delete(KEY)
    if found is None:
        raise DemoFailed("no call obeyed the new policy within 2 s")
    obeyed, error = found
    _line("written", f"{KEY} ← {POLICY}")
    _line("obeyed", f"{1000 * (obeyed - written):.0f} ms after the write, by the first call that was cut off:")
    _line("", str(error))
    if obeyed - written > PROMISE:
        raise DemoFailed(f"the change took {obeyed - written:.2f} s; the promise is under {PROMISE:g} s")


async def _identity(stage: Stage, mesh: Mesh, http: httpx.AsyncClient) -> None:
    _title("5 Identity", "every call above was encrypted, and both ends proved who they are, by Consul's CA")
    for service in ("payments", "checkout"):
        answer = await http.get(f"http://{service}/whoami")
        tls = answer.extensions["network_stream"].get_extra_info("ssl_object")
        if tls is None:
            raise DemoFailed(f"the connection to {service} is not encrypted")
        names = [value for kind, value in tls.getpeercert().get("subjectAltName", ()) if kind == "URI"]
        _line(service, f"{tls.version()}, {' '.join(map(_short, names))}")
    async with Consul(stage.agent.url) as consul:
        await consul.put_intention("demo", "checkout", "deny")
        denied = await first_status(http, "http://checkout/whoami", 403)
        await consul.delete_intention("demo", "checkout")
    if denied is None:
        raise DemoFailed("no call was denied within 2 s of the intention that denies them")
    identity = mesh.identity.material.spiffe_id if mesh.identity and mesh.identity.material else "nobody"
    _line(
        "denied",
        f"{1000 * denied:.0f} ms after `meshsdk intention deny demo checkout`: 403 for {_short(str(identity))}",
    )


async def _without_consul(stage: Stage, mesh: Mesh, http: httpx.AsyncClient) -> None:
    _title("6 Without Consul", "the registry is stopped; calls go on with what is known")
    await asyncio.to_thread(stage.agent.stop)

    async def noticed() -> bool:
        return not any(status.connected for status in mesh.status())

    await _until(noticed, stage, "the registry's absence is noticed", 10)
    load = await load_of(http)
    _shown(load, f"  with knowledge {max(status.age for status in mesh.status()):.1f} s old")
    await asyncio.to_thread(stage.agent.start)
    started = time.monotonic()

    async def back() -> bool:
        return all(status.connected for status in mesh.status())

    await _until(back, stage, "the registry is back", 15)
    _line("back", f"followed again {time.monotonic() - started:.1f} s after its return")


async def _until(condition: Callable[[], Awaitable[bool]], stage: Stage, what: str, seconds: float) -> None:
    """Wait until the condition holds, or fail with what the services that ended have written."""
    end = time.monotonic() + seconds
    while not await condition():
        for port, log in stage.stopped().items():
            raise DemoFailed(f"the service at :{port} ended:\n{log}")
        if time.monotonic() > end:
            raise DemoFailed(f"waited {seconds:.0f} s, and it is not so that {what}")
        await asyncio.sleep(0.05)


def _shown(load: Load, remark: str = "") -> Load:
    """Print what calls brought; every failed one breaks the demo's promise."""
    failed = ("0 failed", "bold green") if not load.errors else (f"{len(load.errors)} failed", "bold red")
    _line(f"{load.calls} calls", Text.assemble(failed, f"  {load.shares}{remark}"))
    if load.errors:
        raise DemoFailed(f"{len(load.errors)} of {load.calls} calls failed, such as: {load.errors[0]}")
    return load


def _short(spiffe_id: str) -> str:
    """Without the middle: trust domains are long, and namespace and datacenter are the same for all."""
    return re.sub(r"://(.{8})[^/]*/.*/svc/", r"://\1…/svc/", spiffe_id)


def _ports(ports: set[int]) -> str:
    return " ".join(f":{port}" for port in sorted(ports))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, DemoFailed) else f"{type(error).__name__}: {error}"


def _title(name: str, what: str) -> None:
    out.print(Text.assemble("\n", (f"{name:<18}", "bold cyan"), what))


def _line(label: str, what: str | Text, width: int = 14) -> None:
    """One line of the story; long ones go on below their beginning, also where nobody looks."""
    text = Text(clean(what)) if isinstance(what, str) else what
    for number, part in enumerate(text.wrap(out, max(out.width - width - 5, 30))):
        part.rstrip()
        out.print(Text.assemble(f"    {label if number == 0 else '':<{width}}", part))

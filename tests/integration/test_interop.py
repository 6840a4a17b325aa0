"""Identities against what others wrote: Consul's own proxy and Envoy call our strict service and are called by us.

`payments` knows nothing of the mesh and stands behind Consul's proxy and behind Envoy, each with mutual TLS. `ledger`
is ours, under uvicorn, `strict`. `checkout` calls both: with us, and from behind Consul's proxy and Envoy.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from meshsdk import Mesh
from meshsdk.core.model import Endpoint, TransportFailure
from meshsdk.identity.securing import TLS_META, Securing
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.engine import Request
from meshsdk.wire.security import Security
from meshsdk_registry import Consul
from tests.integration.interop import Certified, called, connect_proxy, envoy_pair, unmeshed
from tests.integration.programs import ConsulView, Site, Starter, until
from tests.real_consul import RealConsul, free_ports
from tests.wire.callers import OURS, Awaiting, within
from tests.wire.real_servers import Started

LARGE = bytes(range(256)) * 8192  # 2 MiB: over a hundred TLS records

FORCE = 5.0
"""Seconds within which a change of an intention must be obeyed, with the other tests' load on the machine."""

FRONTS = ("consul", "envoy")


@dataclass
class Stage:
    """Everything that runs.

    Attributes:
        mesh: of `checkout`, in this process.
        payments: the ports of `payments` that take mutual TLS, by whose they are.
        ledger: the port of `ledger` that takes mutual TLS.
        outbound: the ports in clear text that lead from `checkout` to `ledger`, by whose they are.
        app: counts what reaches `payments` itself.
        calls: by `checkout`, in this process.
    """

    consul: ConsulView
    mesh: Mesh
    payments: dict[str, int]
    ledger: int
    outbound: dict[str, int]
    app: Site
    calls: httpx.Client

    @property
    def id(self) -> str:
        """The SPIFFE id of `checkout`."""
        assert self.mesh.identity
        assert self.mesh.identity.material
        return str(self.mesh.identity.material.spiffe_id)

    def secure(self, endpoint: Endpoint, service: str) -> Security | None:
        """As `checkout` secures its connections."""
        return Securing(self.mesh.identity, lambda _: None)(endpoint, service)

    def intend(self, destination: str, action: Any) -> None:
        """Say whether `checkout` may call `destination`; None takes that away."""

        async def write() -> None:
            async with Consul(self.consul.url) as consul:
                if action is None:
                    await consul.delete_intention("checkout", destination)
                else:
                    await consul.put_intention("checkout", destination, action)

        asyncio.run(write())


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("interop")
    names = ("grpc", "ledger", *(f"{way} {whose}" for way in ("in", "out") for whose in FRONTS))
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    with ExitStack() as stack:
        running = stack.enter_context(RealConsul("-grpc-port", str(ports["grpc"])))
        consul = ConsulView(running.url)
        app = stack.enter_context(Site(unmeshed()))
        _serve_ledger(stack, consul, folder, ports["ledger"])

        def start(name: str, command: list[str], port: int) -> None:
            stack.enter_context(Started(name, command, port, folder)).ready()

        inbound = ("-listen", f"127.0.0.1:{ports['in consul']}", "-service-addr", f"127.0.0.1:{app.port}")
        start("payments", connect_proxy(running.url, "payments", *inbound), ports["in consul"])
        upstream = ("-upstream", f"ledger:127.0.0.1:{ports['out consul']}")
        start("checkout", connect_proxy(running.url, "checkout", *upstream), ports["out consul"])
        pair = envoy_pair(
            folder / "envoy.json",
            Certified.by(consul, "checkout", folder),
            Certified.by(consul, "payments", folder),
            agent=ports["grpc"],
            app=app.port,
            inbound=ports["in envoy"],
            outbound=ports["out envoy"],
            ledger=ports["ledger"],
        )
        start("envoy", pair, ports["out envoy"])
        caller = Mesh(
            "checkout",
            consul_url=running.url,
            identity="consul",
            state_dir=folder / "caller",
            runtime_dir=folder / "run",
        )
        mesh = stack.enter_context(caller)
        assert mesh.identity
        assert mesh.identity.wait_ready(15), mesh.identity.state
        ways = [{whose: ports[f"{way} {whose}"] for whose in FRONTS} for way in ("in", "out")]
        yield Stage(consul, mesh, ways[0], ports["ledger"], ways[1], app, stack.enter_context(mesh.client()))


def _serve_ledger(stack: ExitStack, consul: ConsulView, folder: Any, port: int) -> None:
    consul.policy("ledger", "{version: 1, tls: {mode: strict}}")
    starter = Starter(consul, folder)
    stack.callback(starter.end)
    factory = ("-m", "uvicorn", "--factory", "tests.integration.interop:meshed", "--port", "{port}")
    program = starter.program("ledger", *factory, MESH_IDENTITY="consul", MESH_TLS_PORT=str(port))
    starter.wait()

    def listed() -> Any:
        found = [entry["Service"] for entry in consul.ask("GET", "health/service/ledger?passing=1")]
        return [(one["Port"], one["Meta"].get(TLS_META)) for one in found] == [(port, "strict")]

    until(listed, about=lambda: program.log)


@pytest.fixture(params=OURS)
async def ours(request: pytest.FixtureRequest, stage: Stage) -> Any:
    """Calls by one of our engines as `checkout`."""
    kind, engine = OURS[request.param]
    wire = kind(engine, secure=stage.secure)
    yield wire
    await wire.end()


async def send(wire: Any, port: int, service: str, body: bytes | None = None) -> tuple[int, bytes]:
    """One call to an instance that says it takes mutual TLS only: who calls, or an echo of `body`."""
    method, path = ("GET", b"/who") if body is None else ("POST", b"/echo")
    endpoint = Endpoint(f"{service}-{port}", "127.0.0.1", port, meta={TLS_META: "strict"})
    request = Request(method, path, [(b"Host", service.encode())], body or b"", {}, service)
    reply = await wire.send(endpoint, request, within(15))
    try:
        return reply.status, await wire.read(reply)
    finally:
        await wire.let_go(reply)


# --- called by us ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", FRONTS)
async def test_our_engines_call(stage: Stage, ours: Any, whose: str) -> None:
    port = stage.payments[whose]
    assert await send(ours, port, "payments") == (200, b'{"peer":null}')
    assert await send(ours, port, "payments", LARGE) == (200, LARGE)


@pytest.mark.parametrize("whose", FRONTS)
async def test_who_is_not_the_service_that_was_called_is_sent_nothing(stage: Stage, ours: Any, whose: str) -> None:
    before = len(stage.app.hits)
    with pytest.raises(TransportFailure, match=r"the peer is spiffe://.*/svc/payments; it should be service orders"):
        await send(ours, stage.payments[whose], "orders")
    assert len(stage.app.hits) == before


async def test_our_clients_call(stage: Stage) -> None:
    """Found in Consul as instances that take mutual TLS, under a policy that takes nothing else."""
    stage.consul.policy("payments", "{version: 1, tls: {mode: strict}, load_balancing: {algorithm: round-robin}}")
    for port in stage.payments.values():
        stage.consul.add("payments", port, Meta={TLS_META: "strict"})
    url, reached = "http://payments/who", set()
    with stage.mesh.client() as http:
        for _ in range(4):
            reply = await asyncio.to_thread(http.get, url)
            reached.add((reply.status_code, *_server(reply)))
    async with stage.mesh.async_client() as awaiting:
        for _ in range(4):
            reply = await awaiting.get(url)
            reached.add((reply.status_code, *_server(reply)))
    assert reached == {(200, "127.0.0.1", port) for port in stage.payments.values()}


def _server(reply: httpx.Response) -> tuple[str, int]:
    """Where it came from."""
    address: tuple[str, int] = reply.extensions["network_stream"].get_extra_info("server_addr")
    return address


# --- calling us -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", FRONTS)
def test_our_strict_service_is_called(stage: Stage, whose: str) -> None:
    status, body = called(stage.outbound[whose], "GET", "/who")
    assert (status, json.loads(body)) == (200, {"peer": stage.id})
    assert called(stage.outbound[whose], "POST", "/echo", LARGE) == (200, LARGE)


def test_our_strict_service_takes_nothing_in_clear_text(stage: Stage) -> None:
    assert called(stage.ledger, "GET", "/who")[0] == 400


# --- intentions -----------------------------------------------------------------------------------------


async def to(stage: Stage, whose: str) -> str:
    """A call of ours on a new connection: proxies ask Consul at the beginning of each."""
    wire = Awaiting(AsyncioEngine, secure=stage.secure)
    try:
        return str((await send(wire, stage.payments[whose], "payments"))[0])
    except TransportFailure:
        return "refused"
    finally:
        await wire.close()


async def between_us(stage: Stage) -> str:
    """On a connection that is kept."""
    return str((await asyncio.to_thread(stage.calls.get, "http://ledger/who")).status_code)


async def from_behind(port: int) -> str:
    try:
        return str((await asyncio.to_thread(called, port, "GET", "/who"))[0])
    except (OSError, http.client.HTTPException):
        return "broken"


CALLS: dict[str, tuple[str, str, Callable[[Stage], Awaitable[str]]]] = {
    "us to Consul's proxy": ("payments", "refused", lambda stage: to(stage, "consul")),
    "us to Envoy": ("payments", "refused", lambda stage: to(stage, "envoy")),
    "Consul's proxy to us": ("ledger", "403", lambda stage: from_behind(stage.outbound["consul"])),
    "Envoy to us": ("ledger", "403", lambda stage: from_behind(stage.outbound["envoy"])),
    "us to us": ("ledger", "403", between_us),
}


@pytest.mark.parametrize("which", CALLS)
async def test_intentions_take_effect(stage: Stage, which: str) -> None:
    destination, refused, call = CALLS[which]
    assert await call(stage) == "200"
    try:
        for action, outcome in (("deny", refused), ("allow", "200"), ("deny", refused), (None, "200")):
            began = time.monotonic()
            await asyncio.to_thread(stage.intend, destination, action)
            written, told = time.monotonic(), {"200", refused}
            while (came := await call(stage)) != outcome:
                assert came in told, came
                assert time.monotonic() - began < FORCE, f"{which}: still {came} after {action}"
            print(f"{which}: {action} in {time.monotonic() - began:.3f} s, {written - began:.3f} s of them to write it")
    finally:
        await asyncio.to_thread(stage.intend, destination, None)

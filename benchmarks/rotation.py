"""Certificates renewed and CAs rotated under load: how many calls fail, and when connections show the new ones.

    python benchmarks/rotation.py [--seconds 60] [--rate 200]

Both examples, FastAPI under uvicorn and Flask under gunicorn, `strict`, called at a steady rate by asyncio and, one
call in four, from threads; one call in eight makes Flask call FastAPI in its turn.

1. On a real Consul whose CA is rotated twice. Consul takes up to 30 s to sign services anew. After each rotation a
   newcomer, whose certificate is of the new root at once, calls everybody too.
2. On a dev agent whose certificates live 5 s. Connections must be authenticated anew within two lifetimes.

The exit code is 1 if a call failed or a connection was too old.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import httpx
from cryptography import x509
from cryptography.x509.oid import NameOID

from meshsdk import Mesh
from meshsdk.identity import Issued, Material
from meshsdk.identity.events import Event
from meshsdk_registry import Consul
from meshsdk_registry.agent import running_agent
from tests.integration.programs import ROOT, ConsulView, Starter
from tests.real_consul import RealConsul

STRICT = "{version: 1, tls: {mode: strict}}"
LIFETIME = 5.0  # seconds, on the dev agent
OWN = "caller"
WORKERS = 2  # of gunicorn


# --- what was seen ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Certificate:
    """One that was shown on connections; times are seconds since the run began.

    Attributes:
        shown: when the first and the last call began that went over a connection authenticated with it.
        superseded: when its owner put another one in force, which is known of our own only.
        ends: of its validity.
    """

    owner: str
    serial: str
    root: str
    ends: float
    shown: tuple[float, float] | None = None
    superseded: float | None = None

    def used(self, at: float) -> None:
        first, last = self.shown or (at, at)
        self.shown = min(first, at), max(last, at)


@dataclass(slots=True)
class Outcome:
    """What a run's calls brought."""

    calls: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    connections: int = 0
    certificates: dict[tuple[str, str], Certificate] = field(default_factory=dict)
    rotations: list[tuple[float, str]] = field(default_factory=list)
    logs: str = ""

    def of(self, owner: str) -> list[Certificate]:
        return [each for each in self.certificates.values() if each.owner == owner and each.shown]

    @property
    def lag(self) -> float:
        """Seconds for which calls still began on connections that showed a former certificate of ours; the most."""
        ended = [each for each in self.of(OWN) if each.superseded is not None]
        late = [each.shown[1] - each.superseded for each in ended if each.shown and each.superseded]
        return max([0.0, *late])

    def oldest(self, lifetime: float) -> float:
        """The age of the oldest certificate with which a call's connection was authenticated, in seconds."""
        return max(each.shown[1] - each.ends + lifetime for each in self.certificates.values() if each.shown)

    def former(self, rotation: int) -> dict[str, float | None]:
        """Seconds from a rotation to the last call on a certificate from before, by owner; None without a later one."""
        at, root = self.rotations[rotation]
        later = {root, *(root for _, root in self.rotations[rotation:])}
        found: dict[str, float | None] = {}
        for owner in sorted({each.owner for each in self.certificates.values()}):
            shown = [(each.shown[1], each.root in later) for each in self.of(owner) if each.shown]
            before = [last - at for last, new in shown if not new]
            found[owner] = max(before, default=0.0) if any(new for _, new in shown) else None
        return found


class Load:
    """Calls as one mesh, and notes what authenticated each call's connection."""

    def __init__(self, mesh: Mesh) -> None:
        assert mesh.identity is not None
        self.mesh, self.identity, self.outcome = mesh, mesh.identity, Outcome()
        self.began, self.wall = time.monotonic(), time.time()
        self._own: WeakKeyDictionary[ssl.SSLContext, Certificate] = WeakKeyDictionary()
        self._peers: WeakKeyDictionary[Any, Certificate] = WeakKeyDictionary()
        self._now: Certificate | None = None
        self.identity.listen(self._told)
        assert self.identity.material is not None
        self._issued(self.identity.material)

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    def _told(self, event: Event) -> None:
        if isinstance(event, Issued):
            self._issued(event.material)

    def _issued(self, material: Material) -> None:
        """Material with the certificate of before and other roots is in force as another context all the same."""
        if self._now is None or self._now.serial != material.serial:
            ends, former = material.not_after.timestamp() - self.wall, self._now
            self._now = self._known(OWN, material.serial, _issuer(material), ends)
            if former is not None:
                former.superseded = self.now
        self._own[self.identity.client_security(OWN).context] = self._now

    def _known(self, *facts: Any) -> Certificate:
        owner, serial, root, ends = facts
        return self.outcome.certificates.setdefault((owner, serial), Certificate(owner, serial, root, ends))

    def saw(self, service: str, reply: httpx.Response, at: float) -> None:
        """Note what the connection of a reply was authenticated with, for a call that began at `at`."""
        stream = reply.extensions["network_stream"]
        secured = stream.get_extra_info("ssl_object")
        if secured is None:
            if stream.get_extra_info("server_addr") is not None:  # else it is closed, and tells nothing any more
                self.outcome.failed[f"{service} was called in clear text"] += 1
            return
        peer = self._peers.get(secured)
        if peer is None:
            found = secured.getpeercert()
            names = {name: value for relative in found["issuer"] for name, value in relative}
            ends = ssl.cert_time_to_seconds(found["notAfter"]) - self.wall
            serial = found["serialNumber"].lower().lstrip("0")
            peer = self._peers[secured] = self._known(service, serial, names["commonName"], ends)
            self.outcome.connections += 1
        peer.used(at)
        self._own[secured.context].used(at)

    async def run(self, seconds: float, rate: float) -> None:
        """Call at a steady rate."""
        with self.mesh.client() as blocking:
            async with self.mesh.async_client() as http, asyncio.TaskGroup() as calls:
                for turn in range(int(seconds * rate)):
                    await asyncio.sleep(max(0.0, turn / rate - self.now))
                    calls.create_task(self._call(turn, http, blocking))

    async def _call(self, turn: int, http: httpx.AsyncClient, blocking: httpx.Client) -> None:
        service, path = TARGETS[turn % len(TARGETS)]
        url = f"http://{service}/{path}"
        await self.call(service, lambda: asyncio.to_thread(blocking.get, url) if turn // 2 % 4 == 0 else http.get(url))

    async def call(self, service: str, get: Callable[[], Awaitable[httpx.Response]]) -> None:
        """One call, counted."""
        at = self.now
        try:
            reply = await get()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a failed call
            self.outcome.failed[f"{service}: {type(error).__name__}: {error}"] += 1
        else:
            if reply.status_code != 200:
                self.outcome.failed[f"{service}: status {reply.status_code}: {reply.text[:200]}"] += 1
            self.saw(service, reply, at)
        self.outcome.slowest = max(self.outcome.slowest, self.now - at)
        self.outcome.calls += 1


TARGETS = [("checkout", "orders/7"), ("payments", "whoami")] * 4
TARGETS[-1] = ("payments", "charge/7")


def _issuer(material: Material) -> str:
    leaf = x509.load_pem_x509_certificates(material.chain_pem.encode())[0]
    return str(leaf.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


# --- the stages ---------------------------------------------------------------------------------------


def _serve(starter: Starter) -> None:
    """Start the two examples, strict, and wait until they are called."""
    for service in ("checkout", "payments"):
        starter.consul.policy(service, STRICT)
    paths = {name: f"{ROOT}/examples/{name}:{ROOT}:{ROOT}/registry" for name in ("fastapi", "flask")}
    starter.uvicorn("checkout", "app:app", PYTHONPATH=paths["fastapi"], MESH_IDENTITY="consul")
    config = f"{ROOT}/examples/flask/gunicorn.conf.py"
    options = ("--config", config, "--workers", str(WORKERS), "--threads", "4")
    starter.gunicorn("payments", *options, app="app:app", PYTHONPATH=paths["flask"], MESH_IDENTITY="consul")
    starter.wait()


def _mesh(name: str, url: str, folder: Path) -> Mesh:
    return Mesh(name, consul_url=url, identity="consul", state_dir=folder / name, runtime_dir=folder / "run")


Beside = Callable[[Load], Coroutine[Any, Any, None]]


async def under_load(url: str, seconds: float, rate: float, beside: Beside | None = None) -> Outcome:
    """Serve, call for `seconds`, and do `beside` meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        starter = Starter(ConsulView(url), Path(name))
        try:
            await asyncio.to_thread(_serve, starter)
            async with _mesh(OWN, url, Path(name)) as mesh:
                assert mesh.identity is not None
                if not await mesh.identity.await_ready(10):
                    raise RuntimeError(f"no identity: {mesh.identity.state.reason}")
                load = Load(mesh)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(load.run(seconds, rate))
                    if beside is not None:
                        tasks.create_task(beside(load))
                load.outcome.logs = "\n".join(program.log for program in starter.programs)
                return load.outcome
        finally:
            await asyncio.to_thread(starter.end)


async def on_consul(seconds: float, rate: float, rotations: int = 2) -> Outcome:
    """A real Consul, whose CA is rotated so often within the time."""

    async def rotate(load: Load) -> None:
        for turn in range(rotations):
            await asyncio.sleep(max(0.0, 1.0 + turn * seconds / rotations - load.now))
            async with Consul(running.url) as consul:
                await consul.rotate_ca()
            at = load.now
            load.outcome.rotations.append((at, await _newcomer(load, running.url, f"newcomer-{turn}")))

    with RealConsul() as running:
        return await under_load(running.url, seconds, rate, rotate)


async def _newcomer(load: Load, url: str, name: str) -> str:
    """A service that comes just now, with a certificate of the new root, calls everybody; return that root's name."""
    with tempfile.TemporaryDirectory() as folder:
        async with _mesh(name, url, Path(folder)) as mesh, mesh.async_client() as http:
            for service, path in dict(TARGETS).items():
                try:
                    (await http.get(f"http://{service}/{path}")).raise_for_status()
                except httpx.HTTPError as error:
                    load.outcome.failed[f"{name} to {service}: {error}"] += 1
            assert mesh.identity is not None
            assert mesh.identity.material is not None
            return _issuer(mesh.identity.material)


async def on_dev_agent(seconds: float, rate: float, lifetime: float = LIFETIME) -> Outcome:
    """A dev agent whose certificates live so many seconds."""
    with running_agent(leaf_ttl=lifetime) as agent:
        return await under_load(agent.url, seconds, rate)


# --- the report ---------------------------------------------------------------------------------------


def report(title: str, outcome: Outcome) -> None:
    """Print what came of a run."""
    failed = sum(outcome.failed.values())
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{title}: {outcome.calls} calls, {failed} failed, slowest {outcome.slowest:.2f} s (load {load})")
    for text, count in outcome.failed.most_common(5):
        print(f"  {count} × {text}")
    for each in outcome.certificates.values():
        if each.shown:
            when = f"{each.shown[0]:5.1f} to {each.shown[1]:5.1f} s"
            print(f"  {each.owner:<9} serial {each.serial[-12:]:<13}of {each.root:<40} on calls from {when}")
    for number, (at, _) in enumerate(outcome.rotations):
        last = {owner: "-" if after is None else f"{after:.1f}" for owner, after in outcome.former(number).items()}
        said = ", ".join(f"{owner} {after} s" for owner, after in last.items())
        print(f"  rotated at {at:.1f} s; the last calls on certificates from before: {said}")
    print(
        f"  {outcome.connections} connections; on a former certificate of ours at most {outcome.lag:.3f} s", flush=True
    )


async def main(seconds: float, rate: float) -> int:
    rotated = await on_consul(seconds, rate)
    report(f"Consul's CA rotated twice in {seconds:g} s", rotated)
    renewed = await on_dev_agent(seconds, rate)
    report(f"certificates of {LIFETIME:g} s for {seconds:g} s", renewed)
    oldest = renewed.oldest(LIFETIME)
    verdict = "pass" if oldest <= 2 * LIFETIME else "FAIL"
    print(f"  oldest certificate under a call: {oldest:.1f} s, bar ≤ {2 * LIFETIME:g} s  {verdict}")
    for outcome in (rotated, renewed):
        if outcome.failed:
            print(outcome.logs[-4000:])
    return 1 if rotated.failed or renewed.failed or verdict == "FAIL" else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each of the two runs")
    parser.add_argument("--rate", type=float, default=200.0, help="calls per second")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.seconds, arguments.rate)))

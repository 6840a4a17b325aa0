"""The life of a serving process: starting, ready, draining, stopped; and its presence in Consul.

Rule 1: a process is registered after its own middleware has been asked something and its port accepts connections.
Importing the application proves nothing: a preloading master, a shell and a test import it too.
Rule 2: on the first signal callers are told (maintenance), given the time to have seen it, and only then is the signal
given on to the server, which closes the door and finishes what is in flight. Outgoing calls work all the while.
Rule 3: an instance leaves Consul with its last worker (rule 2 of workers.py) unless another will take its place
(supervisor.py). A forked child of a serving process is no part of it until it serves itself.
Rule 4: the ready page says yes once the mesh's callers can come in, or it is known that their port stays shut: who
restarts instances one after the other goes on to the next one then. Consul is not waited for beyond `first_wait`.
Rule 5: Consul may be away: leaving never takes longer than `drain_wait` and one second, and what requests in flight
take on a port of our own.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from enum import StrEnum
from weakref import WeakSet

from meshsdk.config import Settings
from meshsdk.discovery.background import Background
from meshsdk.server.announce import CONSUL_WAIT, last_word, log_presence
from meshsdk.server.entrance import Entrance
from meshsdk.server.probe import ask, listens
from meshsdk.server.scrape import MetricsPort
from meshsdk.server.signals import Signals
from meshsdk.server.supervisor import will_replace
from meshsdk.server.waiting import Flag, either
from meshsdk.server.workers import Workers
from meshsdk_registry import Consul, Heartbeat, Registration

__all__ = ["ConsulFactory", "Lifecycle", "Phase", "registration_of"]

log = logging.getLogger("meshsdk.server")

ConsulFactory = Callable[[], Consul]

# First tries come fast: the port opens some milliseconds after the import. Later ones cost a worker's turn each.
_FIRST_PROBE, _FAST_PROBE, _SLOW_PROBE = 0.05, 1.0, 10.0
_FAST_FOR = 60.0
# Seconds until a change of the policy's tls.mode or of the certificate is acted upon.
_FOLLOW = 0.5
# Silence about a port that does not answer: imports of a large application take some seconds.
_PATIENCE = 5.0


class Phase(StrEnum):
    """Where a process stands; `READY` is one whose middleware has been asked something."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


def registration_of(settings: Settings, instance: str, address: str) -> Registration | None:
    """What Consul is told of this process; None for one without a port, which only calls others."""
    if settings.port is None:
        return None
    facts = {"mesh": "1", "protocol": "http", "zone": settings.zone, "version": settings.version}
    meta = {**{name: value for name, value in facts.items() if value}, **settings.meta}
    return Registration(settings.service, instance, address, settings.port, meta, settings.tags, ttl=settings.ttl)


class Lifecycle:
    """The life of this process.

    Args:
        registration: what to tell Consul; None for a process without a port.
        background: where everything here runs.
        consul: makes a client of Consul; called on the background loop.
        workers: the other processes behind the port.
        entrance: where callers of the mesh come in.
        output: the text of the health check, such as the policy versions in force.
        beside: served while the process serves; None for nothing.
        legacy: what a sibling is to remember of this process, asked for at its end.
        probe_path: a page of the middleware's own; the port is asked for it until it answers.
        in_flight: requests that have not ended.
        drain_wait: seconds between telling callers and giving the signal on.
        drain_timeout: seconds in which requests in flight may finish where the server would not wait for them.

    Attributes:
        phase: where the process stands.
        reachable: rule 4: the mesh's callers can come in, or it is known that they cannot.
    """

    def __init__(
        self,
        registration: Registration | None,
        *,
        background: Background,
        consul: ConsulFactory,
        workers: Workers,
        entrance: Entrance,
        output: Callable[[], str],
        beside: MetricsPort | None,
        legacy: Callable[[], str],
        probe_path: str,
        in_flight: Callable[[], int],
        drain_wait: float,
        drain_timeout: float,
    ) -> None:
        self._registration = registration
        self._background = background
        self._consul = consul
        self._workers = workers
        self._entrance = entrance
        self._output = output
        self._beside = beside
        self._legacy = legacy
        self._probe_path = probe_path
        self._in_flight = in_flight
        self._drain_wait = drain_wait
        self._drain_timeout = drain_timeout
        self._signals = Signals(self._keep)
        self._beginning = False
        self._fresh()

    def _fresh(self) -> None:
        self.phase = Phase.STARTING
        self.reachable = self._registration is None
        self._pid = os.getpid()
        self._seen = False
        self._signal = 0
        self._exiting = False
        self._served, self._leave, self._hurry = Flag(), Flag(), Flag()
        self._life: Future[None] | None = None

    # --- told by the adapters; `seen` is on the path of every request -----------------------------------

    def attach(self, *, signals: bool) -> None:
        """An application was wrapped in this process: begin to look for its port.

        Args:
            signals: stand before the server's signal handlers now: a WSGI server has set them, and may never call us
                from the main thread again.
        """
        if self._registration is None and self._beside is None:
            return
        if signals and self._registration is not None:
            self._signals.install()
        self._live()
        _lives.add(self)

    def seen(self) -> None:
        """A request reached our middleware."""
        if not self._seen:
            self._first_request()

    def starting(self) -> None:
        """The application's own start-up has begun: requests prove nothing until it has ended.

        A second start in the same process, as test clients make it, is a life of its own.
        """
        self._beginning = True
        if self.phase is Phase.STOPPED and (self._life is None or self._life.done()):
            again = self._life is not None
            self._fresh()
            if again:
                self._live()

    def started(self) -> None:
        """The application's own start-up has ended, or it has none."""
        self._beginning = False
        if self._registration is not None:
            self._signals.install()

    def close(self) -> None:
        """Leave now, without waiting for callers to see it; waits until Consul has been told, for a bounded time."""
        if life := self._end():
            try:
                life.result(self._patience)
            except TimeoutError:
                self._give_up()

    async def aclose(self) -> None:
        """As `close`, on an asyncio loop."""
        if life := self._end():
            # Unlike wait_for, wait neither cancels the life nor raises what became of it.
            _, running = await asyncio.wait({asyncio.wrap_future(life)}, timeout=self._patience)
            if running:
                self._give_up()

    @property
    def _patience(self) -> float:
        return self._drain_wait + 2 * CONSUL_WAIT + 1.0 + (self._drain_timeout if self._entrance.is_open else 0.0)

    def _end(self) -> Future[None] | None:
        self._leave.set()
        self._hurry.set()
        if self._life is None or self._life.done():
            self.phase = Phase.STOPPED
            return None
        return self._life

    def _give_up(self) -> None:
        log.warning("this process ends before Consul could be told; its health check fails after its TTL")

    def _first_request(self) -> None:
        if self._beginning:
            return
        self._seen = True
        if self.phase is Phase.STARTING:
            self.phase = Phase.READY
        if self._registration is not None:
            self._pid = os.getpid()
            self._signals.install()
            self._live()
            self._served.set()

    def _keep(self, number: int) -> bool:
        """Runs within a signal handler: only the first signal of a serving process is kept."""
        if os.getpid() != self._pid or self.phase is not Phase.READY or self._life is None or self._life.done():
            return False
        self.phase = Phase.DRAINING
        self._signal = number
        self._leave.set()
        return True

    # --- on the background loop -------------------------------------------------------------------------

    def _live(self) -> None:
        if self._life is None:
            self._life = self._background.submit(self._run)
            # Called before the background's own, which was registered at its import: the last one comes first.
            atexit.register(self._at_exit)

    async def _run(self) -> None:
        beside: asyncio.Task[None] | None = None
        try:
            if self._registration is not None:
                await self._workers.open()
                await self._until_serving(self._registration)
            if self._beside is not None and not self._leave.is_set:
                beside = asyncio.create_task(self._beside.run())
            if self._registration is not None and self._served.is_set and await self._admitted():
                await self._present(self._registration)
            else:
                await either(None, self._leave)
        except Exception:
            log.exception("the life of this process in the mesh broke off; a signal now reaches the server at once")
        finally:
            if beside is not None:
                beside.cancel()
            await self._entrance.close(self._drain_timeout)
            await self._workers.close()
            await self._let_go()

    async def _let_go(self) -> None:
        """Give the kept signal on, whatever happened before; not to an interpreter that ends, which it would break."""
        if self._signal and not self._exiting:
            if self._signals.abrupt(self._signal):
                await self._until_idle()
            self._signals.release(self._signal)
        else:
            self.phase = Phase.STOPPED

    async def _until_serving(self, registration: Registration) -> None:
        """Wait for rule 1, or for the process to leave before it ever served."""
        loop = asyncio.get_running_loop()
        began, delay, told = loop.time(), _FIRST_PROBE, ""
        addresses = _local(registration.address)
        while not self._leave.is_set:
            found = await ask(addresses, registration.port, self._probe_path)
            if self._served.is_set and await listens(addresses, registration.port):
                return
            waited = loop.time() - began
            if waited > _PATIENCE and told != (why := self._unserved(registration)):
                told = why
                log.warning("%s is not registered: %s; %s", registration.id, why, found)
            await either(delay, self._leave, *(() if self._served.is_set else (self._served,)))
            delay = min(delay * 1.5, _FAST_PROBE if waited < _FAST_FOR else _SLOW_PROBE)

    def _unserved(self, registration: Registration) -> str:
        advice = "give Mesh(port=...) or MESH_PORT the port that the server listens at"
        if self._served.is_set:
            return f"requests reach this process, but not on port {registration.port}, where callers are sent: {advice}"
        return f"no request has reached this process; if it serves another port than {registration.port}, {advice}"

    async def _present(self, registration: Registration) -> None:
        """Be in Consul until the process leaves."""
        consul = self._consul()
        try:
            heartbeat = await self._beat_until_leaving(consul, registration)
            self.phase = Phase.DRAINING
            await self._depart(heartbeat)
        finally:
            await consul.aclose()

    async def _beat_until_leaving(self, consul: Consul, registration: Registration) -> Heartbeat:
        """Tell Consul what is open, anew where that changes; return what it was told last."""
        while True:
            told = self._as_told(registration)
            heartbeat = Heartbeat(consul, told, output=self._output, notify=log_presence)
            beating = asyncio.create_task(heartbeat.run())
            while not self._leave.is_set and self._as_told(registration) == told:
                await either(_FOLLOW, self._leave)
                await self._entrance.follow()
            # Before anybody is told that we leave: a beat under way would register anew what another takes out.
            beating.cancel()
            await asyncio.wait({beating})
            if self._leave.is_set:
                return heartbeat

    def _as_told(self, registration: Registration) -> Registration:
        port, meta = self._entrance.told()
        facts = {**registration.meta, **meta}
        return replace(registration, port=port or registration.port, meta=facts, native=self._entrance.is_native)

    async def _admitted(self) -> bool:
        """Wait until callers may come in; False where the process leaves before."""
        # Once in any case: who leaves at once takes out what a killed process has left in Consul.
        while not (admitted := await self._entrance.follow()) and not self._leave.is_set:
            # Also where callers may not come in: a certificate that must be there may be Consul's to give, and it away.
            self.reachable = True
            await either(_FOLLOW, self._leave)
        self.reachable = True
        return admitted

    async def _depart(self, heartbeat: Heartbeat) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not await self._followed(heartbeat.registration):
            await last_word("put into maintenance", heartbeat, heartbeat.drain())
        await either(self._drain_wait - (loop.time() - began), self._hurry)
        if await self._followed(heartbeat.registration):
            log.info("%s stays registered: other workers serve it", heartbeat.registration.id)
            await self._workers.tell_one("inherit", self._legacy())
        else:
            await last_word("deregistered", heartbeat, heartbeat.deregister())

    async def _followed(self, registration: Registration) -> bool:
        """Whether another worker serves the instance, or will."""
        return await self._workers.any_serving() or will_replace(registration.port, signalled=bool(self._signal))

    async def _until_idle(self) -> None:
        """Nobody else waits for requests in flight where the handler behind ours just ends the process."""
        deadline = asyncio.get_running_loop().time() + self._drain_timeout
        while self._in_flight() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 (set by threads)
            await asyncio.sleep(0.02)

    # --- the ends of processes --------------------------------------------------------------------------

    def _at_exit(self) -> None:
        if os.getpid() == self._pid:
            self._exiting = True
            self.close()

    def forked(self) -> None:
        """In a forked child: a child of a process that never served may be a worker, any other is not one."""
        was_serving = self._seen
        self._workers.forget()
        self._fresh()
        if was_serving:
            self._pid = 0  # the parent's handlers and its exit are not ours
        else:
            self._live()


_lives: WeakSet[Lifecycle] = WeakSet()


def _forked() -> None:
    for lifecycle in list(_lives):
        lifecycle.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _local(address: str) -> tuple[str, ...]:
    """Where our own port may be found: servers bind to all addresses, to loopback or to the one callers are given."""
    return tuple(dict.fromkeys(("127.0.0.1", *([address] if address else []), "::1")))

"""The life of a serving process: starting, ready, draining, stopped; and its presence in Consul.

Rule 1: a process is registered after its own middleware has been asked something and its port accepts connections.
Importing the application proves nothing: a preloading master, a shell and a test import it too.
Rule 2: on the first signal callers are told (maintenance), given the time to have seen it, and only then is the signal
given on to the server, which closes the door and finishes what is in flight. Outgoing calls work all the while.
Rule 3: an instance leaves Consul with its last worker (rule 2 of workers.py), and a forked child of a serving process
is no part of it until it serves itself.
Rule 4: Consul may be away: leaving never takes longer than `drain_wait` and one second.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from enum import StrEnum
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from meshsdk.server.probe import ask, listens
from meshsdk.server.signals import Signals
from meshsdk.server.workers import Workers
from meshsdk_registry import Back, Consul, Event, Heartbeat, Held, Lost, Registered, Registration, RegistryError

__all__ = ["Background", "Lifecycle", "Phase"]

log = logging.getLogger("meshsdk.server")

T = TypeVar("T")

# How long Consul is waited for at the end, in two halves: for the maintenance, and for the deregistration.
_CONSUL_WAIT = 0.5
_FIRST_PROBE, _FAST_PROBE, _SLOW_PROBE = 0.05, 1.0, 10.0
# Silence about a port that does not answer: imports of a large application take some seconds.
_PATIENCE = 10.0
_FAST_FOR = 60.0


class Phase(StrEnum):
    """Where a process stands; the ready path says so."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"


class Background(Protocol):
    """The one thread with an event loop that all work beside requests runs on."""

    def submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Run a coroutine there."""


class Lifecycle:
    """The life of this process.

    Args:
        registration: what to tell Consul; None for a process without a port, which only has phases.
        background: where everything here runs.
        consul: makes a client of Consul; called on the background loop.
        workers: the other processes behind the port.
        output: the text of the health check, such as the policy versions in force.
        ready_path: what the port is asked for until it answers.
        in_flight: requests that have not ended.
        drain_wait: seconds between telling callers and giving the signal on.
        drain_timeout: seconds in which requests in flight may finish where the server would not wait for them.
    """

    def __init__(
        self,
        registration: Registration | None,
        *,
        background: Background,
        consul: Callable[[], Consul],
        workers: Workers,
        output: Callable[[], str],
        ready_path: str,
        in_flight: Callable[[], int],
        drain_wait: float,
        drain_timeout: float = 30.0,
    ) -> None:
        self.phase = Phase.STARTING
        self._registration = registration
        self._background = background
        self._consul = consul
        self._workers = workers
        self._output = output
        self._ready_path = ready_path
        self._in_flight = in_flight
        self._drain_wait = drain_wait
        self._drain_timeout = drain_timeout
        self._signals = Signals(self._keep)
        self._beginning = False
        self._fresh()

    def _fresh(self) -> None:
        self._pid = os.getpid()
        self._seen = False
        self._served: Future[None] = Future()
        self._leave: Future[int] = Future()
        self._hurry: Future[None] = Future()
        self._life: Future[None] | None = None

    # --- told by the adapters; `seen` is on the path of every request ------------------------------------

    def attach(self, *, signals: bool) -> None:
        """An application was wrapped in this process: begin to look for its port.

        Args:
            signals: stand before the server's signal handlers now, because it has set them (WSGI) and will not call us
                from the main thread again.
        """
        if self._registration is None:
            return
        if signals:
            self._signals.install()
        self._live()
        if self not in _lives:
            _lives.add(self)

    def seen(self) -> None:
        """A request reached our middleware."""
        if not self._seen:
            self._first_request()

    def starting(self) -> None:
        """The application's own start-up has begun: requests prove nothing until it has ended."""
        self._beginning = True

    def started(self) -> None:
        """The application's own start-up has ended, or it has none."""
        self._beginning = False
        if self._registration is not None:
            self._signals.install()

    def stop(self) -> Future[None]:
        """Leave now, without waiting for callers to see it; the future is done when Consul has been told."""
        _set(self._leave, 0)
        _set(self._hurry, None)
        if self._life is None:
            self.phase = Phase.STOPPED
            return _done()
        return self._life

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
            _set(self._served, None)

    def _keep(self, number: int) -> bool:
        """Runs within a signal handler: only the first signal of a serving process is kept."""
        if os.getpid() != self._pid or self.phase is not Phase.READY or self._life is None or self._life.done():
            return False
        self.phase = Phase.DRAINING
        _set(self._leave, number)
        return True

    # --- on the background loop --------------------------------------------------------------------------

    def _live(self) -> None:
        if self._life is None:
            self._life = self._background.submit(self._run)
            # After the background's own, which was registered when its thread began: the last one is called first.
            atexit.register(self._at_exit)

    async def _run(self) -> None:
        registration = self._registration
        if registration is None:
            return
        await self._workers.open()
        try:
            if await self._until_serving(registration):
                await self._present(registration)
        finally:
            self.phase = Phase.STOPPED
            await self._workers.close()
        if number := self._leave.result():
            if self._signals.abrupt(number):
                await self._until_idle()
            self._signals.release(number)

    async def _until_serving(self, registration: Registration) -> bool:
        """Wait for rule 1; False when the process leaves before it ever served."""
        loop = asyncio.get_running_loop()
        began, delay, told = loop.time(), _FIRST_PROBE, False
        addresses = _local(registration.address)
        while not self._leave.done():
            found = await ask(addresses, registration.port, self._ready_path)
            if self._served.done() and await listens(addresses, registration.port):
                return True
            waited = loop.time() - began
            if waited > _PATIENCE and not told:
                told = True
                log.warning("%s is not registered yet: this process was not asked anything; %s", registration.id, found)
            await _either(delay, self._leave, *(() if self._served.done() else (self._served,)))
            delay = min(delay * 1.5, _FAST_PROBE if waited < _FAST_FOR else _SLOW_PROBE)
        return False

    async def _present(self, registration: Registration) -> None:
        """Be in Consul until the process leaves."""
        consul = self._consul()
        try:
            heartbeat = Heartbeat(consul, registration, output=self._output, notify=_tell)
            beating = asyncio.ensure_future(heartbeat.run())
            await _either(None, self._leave)
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            await self._depart(heartbeat)
        finally:
            await consul.aclose()

    async def _depart(self, heartbeat: Heartbeat) -> None:
        self.phase = Phase.DRAINING  # from here on the others hear that we leave
        began = asyncio.get_running_loop().time()
        if not await self._workers.any_serving():
            await _bounded("put into maintenance", heartbeat, heartbeat.drain())
        await _either(self._drain_wait - (asyncio.get_running_loop().time() - began), self._hurry)
        if await self._workers.any_serving():
            log.info("%s stays registered: other workers serve", heartbeat.registration.id)
        else:
            await _bounded("deregistered", heartbeat, heartbeat.deregister())

    async def _until_idle(self) -> None:
        """Nobody else waits for requests in flight where the handler behind ours just ends the process."""
        deadline = asyncio.get_running_loop().time() + self._drain_timeout
        while self._in_flight() and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)

    # --- the ends of processes ---------------------------------------------------------------------------

    def _at_exit(self) -> None:
        if os.getpid() != self._pid or self._life is None or self._life.done():
            return
        try:
            self.stop().result(2 * _CONSUL_WAIT + 0.5)
        except TimeoutError:
            log.warning("this process ends before Consul could be told; its check fails after its TTL")

    def forked(self) -> None:
        """In a forked child: a child of a process that never served may be a worker, any other is not one."""
        was_serving = self._seen
        self._workers.forget()
        self.phase = Phase.STARTING
        self._fresh()
        if was_serving:
            self._pid = 0  # the parent's handlers and exit are not ours
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


def _set(future: Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


async def _either(seconds: float | None, *futures: Future[Any]) -> None:
    """Wait until one of them is done, at most `seconds`; the futures themselves are never cancelled."""
    if any(future.done() for future in futures):
        return
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake(_: Future[Any]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(woken.set)

    for future in futures:
        future.add_done_callback(wake)
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        return


async def _bounded(what: str, heartbeat: Heartbeat, work: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(_CONSUL_WAIT):
            await work
    except (RegistryError, TimeoutError) as error:
        why = str(error) or f"Consul did not answer within {_CONSUL_WAIT:g} s"
        log.warning("%s was not %s: %s", heartbeat.registration.id, what, why)


def _tell(event: Event) -> None:
    match event:
        case Registered(registration, again):
            log.info("%s registered%s", registration.id, " again, Consul had forgotten it" if again else "")
        case Held(reason):
            log.warning("held in maintenance by an operator: %s", reason)
        case Lost(error):
            log.warning("Consul cannot be told that we live: %s", error)
        case Back():
            log.info("Consul is back")

"""Where calls ask for a service: known ones are one dictionary away, unknown ones are watched from then on.

Rule 1: `peek` finds what is warm. What is not is looked up under a lock and becomes warm again.
Rule 2: only the first call to a service waits, at most `first_wait` from the moment it was first asked for. While
        Consul is away and nothing is remembered, later calls fail at once; the watch goes on and ends that.
Rule 3: every half idle time, all services turn cold, which costs the next call to each one look-up. One that stayed
        cold and idle all the while is no longer watched, and forgotten if there is nothing to remember.
Rule 4: a forked child starts cold, with all that was known, and watches for itself what it calls.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from meshsdk.config import SERVICE_NAME
from meshsdk.core.cluster import Cluster
from meshsdk.core.events import Sink
from meshsdk.core.plan import Plan
from meshsdk.core.strategy import Stop, Wait
from meshsdk.discovery.background import Background
from meshsdk.discovery.gate import Gate
from meshsdk.discovery.known import KnownService
from meshsdk.discovery.policies import Policies
from meshsdk.discovery.status import ServiceStatus
from meshsdk.discovery.watcher import Watcher
from meshsdk.errors import ConfigError, UnknownService
from meshsdk_registry import Consul

__all__ = ["Directory"]

_log = logging.getLogger("meshsdk.discovery")

CLOSE_TIMEOUT = 2.0
"""Seconds `close` waits for the background to stop; it needs milliseconds unless the disk hangs."""


class Directory:
    """The services one process calls.

    Args:
        consul: makes a client of Consul; called on the background loop.
        caller: this process's own service name, for `from` sections of policies.
        background: where the watches run.
        clock, rng, sink: what clusters are made with: seconds, chance, and who is told events.
        first_wait: seconds the first call to a service may wait.
        state_dir: where the last known good is kept for a start without Consul; None keeps nothing.
        grace: seconds an instance that vanished is kept in reserve.
        idle: seconds after which a service nobody calls is no longer watched.
        wait, stop: tenacity objects of the user's, asked after a failure in place of the policy's backoff.
    """

    def __init__(
        self,
        consul: Callable[[], Consul],
        caller: str,
        *,
        background: Background,
        sink: Sink,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        first_wait: float = 2.0,
        state_dir: Path | None = None,
        grace: float = 5.0,
        idle: float = 600.0,
        wait: Wait | None = None,
        stop: Stop | None = None,
    ) -> None:
        self._wait = wait
        self._stop = stop
        self._background = background
        self._first_wait = first_wait
        self._grace = grace
        self._idle = idle
        self._clock = clock
        self._rng = rng or random.Random()
        self._sink = sink
        self._warm: dict[str, Cluster] = {}
        self._services: dict[str, KnownService] = {}
        self._watched: dict[str, float] = {}  # when each was last known to be called
        self._caller = caller
        self._follows_own = False
        self._unsettled = False  # and said so
        self._policies = Policies(caller)
        self._closed = False
        self._lock = threading.Lock()
        self._new_watcher = partial(
            Watcher, consul, policies=self._policies, services=self._services, state_dir=state_dir,
            first_wait=first_wait, clock=clock, rng=self._rng,
        )  # fmt: skip
        self._watcher = self._new_watcher()
        self._sweeper: Future[None] | None = None
        self.peek: Callable[[str], Cluster | None] = self._warm.get
        _all.add(self)

    def __repr__(self) -> str:
        return f"<Directory of {len(self._services)} services, {len(self._watched)} watched>"

    def cluster(self, service: str) -> Cluster:
        """Return the cluster of a service; the first call waits (rule 2).

        Raises:
            ConfigError: no service can have this name.
            UnknownService: Consul cannot be asked and nothing is remembered; says why and for how long.
        """
        known = self._use(service)
        if known.cluster is None and not known.gate.is_open and not self._background.is_current:
            known.gate.wait(self._first_wait)
        return self._found(known)

    async def acluster(self, service: str) -> Cluster:
        """The same from any event loop, which goes on meanwhile."""
        known = self._use(service)
        if known.cluster is None and not known.gate.is_open:
            await known.gate.await_open(self._first_wait)
        return self._found(known)

    def own_plan(self) -> Plan:
        """Return what the policy says of this process's own service; the first call begins to follow its documents."""
        if not self._follows_own:
            self._follow_own()
        return self._policies.plan(self._caller)

    def own_gate(self) -> Gate:
        """Return what opens when the own policy is known, or nobody will tell it soon; begins to follow it."""
        if not self._follows_own:
            self._follow_own()
        if self._closed:
            self._watcher.own.gate.open()
        return self._watcher.own.gate

    def settled_plan(self) -> Plan:
        """Return the own plan, once it is known or `first_wait` is over."""
        if not (gate := self.own_gate()).is_open and not self._background.is_current:
            gate.wait(self._first_wait)
        return self._settled()

    async def asettled_plan(self) -> Plan:
        """The same from any event loop, which goes on meanwhile."""
        if not (gate := self.own_gate()).is_open:
            await gate.await_open(self._first_wait)
        return self._settled()

    def own_known(self) -> bool:
        """Whether Consul or the disk has said what this process's own policy is, if only that there is none."""
        return self._watcher.own.known

    def status(self) -> tuple[ServiceStatus, ...]:
        """Return what is known of each service in use, by name."""
        with self._lock:
            services = sorted(self._services.items())
        return tuple(self._status(known) for _, known in services)

    def policy_versions(self) -> Mapping[str, str]:
        """Return the version of the plan in force for each service in use, such as `payments@41` or `defaults`."""
        return {status.service: status.policy for status in self.status()}

    def close(self) -> None:
        """Stop watching. What is known stays in force, so that calls at the process's end still arrive."""
        if (closing := self._close()) and not self._background.is_current:
            closing.result(CLOSE_TIMEOUT)

    async def aclose(self) -> None:
        """The same from asyncio or trio."""
        if closing := self._close():
            ended = Gate()
            closing.add_done_callback(lambda _: ended.open())
            if not await ended.await_open(CLOSE_TIMEOUT):
                closing.cancel()
                raise TimeoutError(f"the watches did not end within {CLOSE_TIMEOUT:g} s")
            closing.result()

    # --- looking up -------------------------------------------------------------------------------------

    def _use(self, service: str) -> KnownService:
        with self._lock:
            known = self._services.get(service)
            if known is None:
                _check_name(service)
                known = KnownService(service, grace=self._grace, clock=self._clock, make=self._make)
                if self._closed:
                    raise UnknownService("the mesh of this process is closed", service=service)
                self._services[service] = known
            if self._closed:
                return known
            if service not in self._watched:
                self._background.call_soon(self._watcher.watch, known)
                self._sweep_later()
            self._watched[service] = self._clock()
        return known

    def _found(self, known: KnownService) -> Cluster:
        cluster = known.cluster
        if cluster is None:
            raise UnknownService(self._why(known), service=known.service)
        with self._lock:
            if known.service in self._watched:
                self._warm[known.service] = cluster
        return cluster

    def _why(self, known: KnownService) -> str:
        if known.error:
            return f"{known.error} (since {known.failing:.1f} s); nothing is remembered of the service"
        consul = f"Consul at {self._watcher.url}" if self._watcher.url else "Consul"
        return f"{consul} has not answered within {self._first_wait:g} s; nothing is remembered of the service"

    def _make(self, service: str, plan: Plan) -> Cluster:
        return Cluster(
            service, plan, clock=self._clock, rng=self._rng, sink=self._sink, wait=self._wait, stop=self._stop
        )

    def _status(self, known: KnownService) -> ServiceStatus:
        problem, unread = self._policies.problem(known.service), self._watcher.policy_error
        cluster = known.cluster
        return ServiceStatus(
            service=known.service,
            source=known.source,
            connected=known.connected,
            watched=known.service in self._watched,
            age=known.age,
            error=known.error,
            policy=cluster.plan.version if cluster else self._policies.plan(known.service).version,
            policy_problem="\n".join(filter(None, (problem, unread and f"policies cannot be read: {unread}"))),
            endpoints=known.damping.endpoints,
            limbo=known.damping.limbo,
            refusals=known.refusals,
        )

    def _settled(self) -> Plan:
        if not (self._watcher.own.known or self._unsettled or self._closed):
            self._unsettled = True
            _log.warning(
                "%s: Consul does not tell the policy, and nothing of it is remembered on disk: until it does, calls to"
                " hosts outside the mesh are not restricted",
                self._caller,
            )
        return self.own_plan()

    def _follow_own(self) -> None:
        with self._lock:
            if self._closed or self._follows_own:
                return
            self._follows_own = True
        self._background.call_soon(self._watcher.follow, self._caller)

    # --- growing cold (rule 3) --------------------------------------------------------------------------

    def _sweep_later(self) -> None:
        if self._sweeper is None:
            self._sweeper = self._background.submit(self._sweep_for_ever)

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._idle / 2)
            self._sweep(self._clock())

    def _sweep(self, now: float) -> None:
        with self._lock:
            warm = set(self._warm)
            self._warm.clear()
            for service in list(self._watched):
                known = self._services[service]
                if service in warm or (known.cluster is not None and known.cluster.in_flight):
                    self._watched[service] = now
                elif now - self._watched[service] >= self._idle / 2:
                    self._let_rest(known)

    def _let_rest(self, known: KnownService) -> None:
        del self._watched[known.service]
        self._watcher.unwatch(known)
        if known.cluster is None or not known.damping.endpoints:
            del self._services[known.service]

    # --- ends and beginnings ----------------------------------------------------------------------------

    def _close(self) -> Future[None] | None:
        with self._lock:
            if self._closed:
                return None
            self._closed = True
            self._watched.clear()
            if self._sweeper is not None:
                self._sweeper.cancel()
            elif not self._follows_own:  # nothing was ever watched in this process
                return None
        return self._background.submit(self._watcher.close)

    def _forked(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent may have held it
        self._warm.clear()
        self._watched.clear()
        self._sweeper = None
        self._follows_own = False
        self._watcher = self._new_watcher()
        for known in self._services.values():
            known.forked()


_all: weakref.WeakSet[Directory] = weakref.WeakSet()


def _after_fork() -> None:
    for directory in list(_all):
        directory._forked()  # noqa: SLF001  # this module's own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)  # after the background's, which was registered when it was imported


def _check_name(service: str) -> None:
    if not SERVICE_NAME.fullmatch(service):
        suggestion = re.sub(r"[^a-z0-9]+", "-", service.lower()).strip("-")[:63].rstrip("-") or "payments"
        raise ConfigError(
            f"service name {service!r}: write a DNS label, small letters, digits and dashes, at most 63,"
            f" such as {suggestion!r}"
        )

"""What a worker knows, because its control process told it: services, the identity, keys of tokens, who may come in.

Rule 1  A service is asked for once, at its first call; from then on each change is told until it is forgotten, which is
        when nobody has called it for `idle` seconds.
Rule 2  Limits are those of the whole sidecar: of each, a worker has its share, rounded up.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

from meshsdk.core.cluster import Cluster
from meshsdk.core.events import Sink
from meshsdk.core.plan import Limits, Plan
from meshsdk.errors import UnknownService
from meshsdk.identity.providers.provider import Publish
from meshsdk.tokens.keys import KeySet, read_keys
from meshsdk_sidecar.link import AskKeys, Forget, Identified, Keys, Told, Watch

__all__ = ["OwnLoop", "PushedIdentity", "PushedKeys", "PushedServices", "shared"]

T = TypeVar("T")


def shared(plan: Plan, workers: int) -> Plan:
    """One worker's part of a plan (rule 2); 0 is no limit, whoever has it."""
    limits = plan.limits
    counts = (limits.max_requests, limits.max_pending, limits.max_connections_per_endpoint)
    return replace(plan, limits=Limits(*(-(-count // workers) for count in counts)))


class PushedServices:
    """Finds clusters; a `meshsdk_sidecar.proxy.plane.Services`.

    Args:
        ask: tells the control process `Watch` and `Forget`.
        workers: how many share the limits.
        sink: told of calls.
        idle: rule 1.
    """

    def __init__(
        self,
        ask: Callable[[Any], None],
        workers: int,
        sink: Sink,
        idle: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._workers = workers
        self._sink = sink
        self._idle = idle
        self._clock = clock
        self._rng = random.Random()
        self._warm: dict[str, Cluster] = {}
        self._known: dict[str, Cluster] = {}
        self._used: dict[str, float] = {}
        self._awaited: dict[str, asyncio.Future[Cluster]] = {}
        self._lost = ""
        self.peek: Callable[[str], Cluster | None] = self._warm.get

    def __iter__(self) -> Iterator[Cluster]:
        return iter(tuple(self._known.values()))

    async def acluster(self, service: str) -> Cluster:
        """The cluster, after waiting for what the control process knows; that has a bound of its own.

        Raises:
            MeshError: nothing is known of it; says why.
        """
        cluster = self._known.get(service)
        if cluster is None:
            cluster = await asyncio.shield(self._coming(service))
        self._warm[service] = cluster
        self._used[service] = self._clock()
        return cluster

    def hear(self, told: Told) -> None:
        """Follow what is known of a service."""
        if told.error is not None:
            self._settle(told.service, told.error)
            return
        cluster, plan = self._known.get(told.service), told.plan and shared(told.plan, self._workers)
        if cluster is None:
            if plan is None or told.snapshot is None:
                return  # it was forgotten while this was on its way
            cluster = Cluster(told.service, plan, clock=self._clock, rng=self._rng, sink=self._sink)
            self._known[told.service] = cluster
            self._used[told.service] = self._clock()
        elif plan is not None:
            cluster.adopt(plan)
        if told.snapshot is not None:
            cluster.update(told.snapshot)
        self._settle(told.service, cluster)

    def lose(self, why: str) -> None:
        """Nobody will tell anything any more."""
        self._lost = why
        for service in tuple(self._awaited):
            self._settle(service, UnknownService(why, service=service))

    def sweep(self) -> None:
        """Let services turn cold, and forget those that stayed so; to be called every half `idle`."""
        now, warm = self._clock(), set(self._warm)
        self._warm.clear()
        for service, cluster in tuple(self._known.items()):
            if service in warm or cluster.in_flight:
                self._used[service] = now
            elif now - self._used[service] >= self._idle / 2:
                del self._known[service], self._used[service]
                self._ask(Forget(service))

    def _coming(self, service: str) -> asyncio.Future[Cluster]:
        if self._lost:
            raise UnknownService(self._lost, service=service)
        coming = self._awaited.get(service)
        if coming is None:
            coming = self._awaited[service] = asyncio.get_running_loop().create_future()
            self._ask(Watch(service))
        return coming

    def _settle(self, service: str, found: Cluster | Exception) -> None:
        coming = self._awaited.pop(service, None)
        if coming is None or coming.done():
            return
        if isinstance(found, Exception):
            coming.set_exception(found)
            coming.exception()  # whoever waited may have gone
        else:
            coming.set_result(found)


class OwnLoop:
    """The loop that serves, for what goes on beside requests elsewhere, in a thread of its own: here that is little.

    Args:
        loop: the worker's.
    """

    is_current = True

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def submit(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> Future[T]:
        """Run `function(*args)` as a task."""
        return asyncio.run_coroutine_threadsafe(function(*args), self._loop)

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call it."""
        self._loop.call_soon_threadsafe(function, *args)


class PushedIdentity:
    """A provider of what the control process pushes; `meshsdk.identity.holder.Identity` ages it as any other."""

    def __init__(self) -> None:
        self._publish: Publish | None = None
        self._last: Identified | None = None

    async def run(self, publish: Publish) -> None:
        """Publish whatever comes."""
        self._publish = publish
        try:
            self._pass_on()
            await asyncio.Event().wait()
        finally:
            self._publish = None

    def hear(self, told: Identified) -> None:
        """Pass it on, on the loop where it runs."""
        self._last = told
        self._pass_on()

    def _pass_on(self) -> None:
        if self._publish is not None and self._last is not None:
            self._publish(self._last.found)


class PushedKeys:
    """The key sets that the control process has read.

    Args:
        ask: tells it `AskKeys`.
    """

    def __init__(self, ask: Callable[[Any], None]) -> None:
        self._ask = ask
        self._last = Keys({})
        self._sources: dict[str, _Source] = {}

    def source(self, location: str, publish: Callable[[KeySet | None], object]) -> _Source:
        """One location's, for `meshsdk.tokens.keeper.Tokens`."""
        found = self._sources[location] = _Source(publish, lambda: self._ask(AskKeys(location)))
        found.hear(self._last.looks.get(location))
        return found

    def hear(self, told: Keys) -> None:
        """Publish what has changed."""
        self._last = told
        for location, source in self._sources.items():
            source.hear(told.looks.get(location))


class _Source:
    """A location at which another process looks."""

    def __init__(self, publish: Callable[[KeySet | None], object], ask: Callable[[], None]) -> None:
        self.ask = ask
        self._publish = publish
        self._look = 0, b""

    def hear(self, look: tuple[int, bytes] | None) -> None:
        if look is None or look[0] == self._look[0]:
            return
        changed = look[1] != self._look[1]
        self._look = look
        self._publish(read_keys(look[1]) if changed else None)

    async def run(self) -> None:
        await asyncio.Event().wait()  # it is told

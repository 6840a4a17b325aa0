"""The background half of a directory: one client of Consul, one watch per service, one watch of all policies.

Everything here runs on the background loop. One recursive watch of `mesh/policy/` serves all services: Consul's agents
get slow at thousands of blocked queries, and a document may be written before anybody calls its service.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from math import inf
from pathlib import Path

from meshsdk.discovery.disk import Disk
from meshsdk.discovery.keeper import Keeper
from meshsdk.discovery.known import KnownService
from meshsdk.discovery.link import Link
from meshsdk.discovery.memory import Memory
from meshsdk.discovery.own import OwnPolicy
from meshsdk.discovery.policies import PREFIX, Policies
from meshsdk_registry import Back, Changed, Consul, Lost, watch_instances, watch_keys

__all__ = ["Watcher"]

_log = logging.getLogger("meshsdk.discovery")

RESTART_PAUSE = 1.0
"""Seconds before a watch that broke by a mistake of ours is taken up again."""


class Watcher:
    """What asks Consul, for one process.

    Args:
        consul: makes the client, on the loop, when the first service is used.
        policies: kept by the directory, like `services`: both outlive a fork, this does not.
        services: those in use, by name.
        state_dir: where the last known good is kept; None for nowhere.
        first_wait: seconds after which a service takes what there is.
        clock, rng: time in seconds, and chance.

    Attributes:
        url: Consul's address; empty before the first use.
        policy_error: why policies cannot be read; empty while they can.
        own: the policy of this process's own service.
    """

    def __init__(
        self,
        consul: Callable[[], Consul],
        *,
        policies: Policies,
        services: Mapping[str, KnownService],
        state_dir: Path | None,
        first_wait: float,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.url = ""
        self.policy_error = ""
        self.own = OwnPolicy(policies)
        self._make_consul = consul
        self._policies = policies
        self._services = services
        self._state_dir = state_dir
        self._first_wait = first_wait
        self._clock = clock
        self._rng = rng
        self._link = Link()
        self._policies_answered = False
        self._life: asyncio.Task[None] | None = None
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}

    def watch(self, known: KnownService) -> None:
        """Begin to watch a service, or go on after a rest."""
        if known.service in self._watches or self._services.get(known.service) is not known:
            return
        try:
            self._open()
        except (OSError, ValueError) as error:  # a token file or certificate that cannot be read
            known.lost(f"no client of Consul could be made: {error}", self._clock())
            known.settle(self._policies.plan(known.service))
            asyncio.get_running_loop().call_later(RESTART_PAUSE, self.watch, known)
            return
        memory = self._disk.load(known.service) if known.cluster is None else None
        known.recall(memory)
        self._policies.use(known.service, memory.documents if memory else {})
        if self._policies_answered:
            known.follow(self._policies.plan(known.service))
        loop = asyncio.get_running_loop()
        self._watches[known.service] = loop.create_task(self._for_ever(lambda: self._watch_instances(known)))
        # A little before those who wait give up, so that they see what was settled.
        loop.call_later(self._first_wait * 0.95, self._settle, known)

    def follow(self, service: str) -> None:
        """Follow the documents of a service without watching its instances: a served process obeys its own."""
        try:
            self._open()
        except (OSError, ValueError) as error:
            _log.warning("no client of Consul could be made, trying again in %g s: %s", RESTART_PAUSE, error)
            self.own.gate.open()
            asyncio.get_running_loop().call_later(RESTART_PAUSE, self.follow, service)
            return
        self.own.follow(service, self._disk.load(f"{service}.own"))
        if self._policies_answered:
            self.own.give_up()  # unless Consul has told them
            self._keep_own()
        asyncio.get_running_loop().call_later(self._first_wait * 0.95, self.own.give_up)

    def unwatch(self, known: KnownService) -> None:
        """Stop watching a service that nobody calls."""
        if (task := self._watches.pop(known.service, None)) is not None:
            task.cancel()
        if (expiry := self._expiries.pop(known.service, None)) is not None:
            expiry.cancel()
        self._link.forget(_instances_of(known.service))
        known.rest()

    async def close(self) -> None:
        """Stop everything, write down what is known, close the client."""
        life, self._life = self._life, None
        if life is not None:
            life.cancel()
            await asyncio.wait((life,))

    # --- the loop's tasks -------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._life is not None:
            return
        self._consul = self._make_consul()
        self.url = self._consul.url
        self._disk = Disk(self._state_dir, f"{self.url} {self._consul.datacenter or ''}".strip())
        self._keeper = Keeper(self._disk, self._memory)
        self._life = asyncio.get_running_loop().create_task(self._live())

    async def _live(self) -> None:
        try:
            await asyncio.gather(self._for_ever(self._watch_policies), self._for_ever(self._keeper.run))
        finally:
            for known in list(self._services.values()):
                if known.connected:
                    self._disk.save(known.service, self._memory(known.service) or Memory())
            watches, self._watches = list(self._watches.values()), {}
            for task in watches:
                task.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            for known in list(self._services.values()):
                known.rest()
            await self._consul.aclose()

    async def _for_ever(self, run: Callable[[], Awaitable[None]]) -> None:
        """Faults of Consul do not end a watch; a mistake of ours must neither end it unseen."""
        while True:
            try:
                await run()
            except Exception:  # noqa: BLE001  # logged with its stack; the other watches and this one go on
                _log.exception("a watch broke off; it goes on in %g s", RESTART_PAUSE)
            await asyncio.sleep(RESTART_PAUSE)

    async def _watch_instances(self, known: KnownService) -> None:
        what = _instances_of(known.service)
        async with aclosing(watch_instances(self._consul, known.service, clock=self._clock, rng=self._rng)) as events:
            async for event in events:
                match event:
                    case Changed(answer):
                        known.listed(answer.value)
                        self._keeper.mark(known.service)
                    case Lost(error, since):
                        self._link.lost(what, error)
                        known.lost(str(error), since)
                    case Back(away):
                        self._link.back(what, away)
                        known.back()
                self._expect(known)

    async def _watch_policies(self) -> None:
        async with aclosing(watch_keys(self._consul, PREFIX, clock=self._clock, rng=self._rng)) as events:
            async for event in events:
                match event:
                    case Changed(answer):
                        self._follow(self._policies.received(answer.value))
                        self.own.answered()
                        self._keep_own()
                    case Lost(error, _):
                        self._link.lost(PREFIX, error)
                        self.policy_error = str(error)
                        self._follow([])
                        self.own.give_up()
                    case Back(away):
                        self._link.back(PREFIX, away)
                        self.policy_error = ""

    def _follow(self, changed: list[str]) -> None:
        """Hand on the plans that changed; after the first answer or failure, all of them."""
        first, self._policies_answered = not self._policies_answered, True
        for service in list(self._watches) if first else changed:
            if (known := self._services.get(service)) is not None:
                known.follow(self._policies.plan(service))
                self._keeper.mark(service)

    def _keep_own(self) -> None:
        if self.own.service:
            self._keeper.mark(self.own.name)

    def _expect(self, known: KnownService) -> None:
        """Come back when the next endpoint in limbo is to be let go."""
        if (expiry := self._expiries.pop(known.service, None)) is not None:
            expiry.cancel()
        if (at := known.damping.next_expiry) < inf:
            loop = asyncio.get_running_loop()
            self._expiries[known.service] = loop.call_later(max(0.0, at - self._clock()), self._expire, known)

    def _expire(self, known: KnownService) -> None:
        known.expire()
        self._keeper.mark(known.service)
        self._expect(known)

    def _settle(self, known: KnownService) -> None:
        if not known.gate.is_open:
            known.settle(self._policies.plan(known.service))

    def _memory(self, service: str) -> Memory | None:
        """What is worth keeping: only what Consul said."""
        if service == self.own.name:
            return self.own.memory()
        known = self._services.get(service)
        if known is None or known.source != "consul":
            return None
        return replace(known.memory(), documents=self._policies.documents(service))


def _instances_of(service: str) -> str:
    return f"instances of {service}"

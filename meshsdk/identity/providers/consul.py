"""An identity from Consul's CA (Connect): the agent makes key and certificate and renews them in time.

Rule 1  Certificate and roots are watched side by side; each change of either, once both are known, is published.
Rule 2  The roots are believed as Consul tells them, even while our certificate leads to none of them: dropping a root
        is how Consul revokes, and must not wait for our own renewal, which follows it by up to 30 s.
Rule 3  What comes is examined one after another, always what is newest then, as an examination may take its time.
Rule 4  While Consul is away, what it said last stays in force until it expires. Its absence is told once, as is its
        return.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from meshsdk.identity.events import Trouble
from meshsdk.identity.material import BadMaterial
from meshsdk.identity.providers.provider import Examine, Publish, examine_here
from meshsdk_registry import (
    Back,
    Changed,
    Consul,
    Denied,
    Leaf,
    Lost,
    RegistryError,
    Rejected,
    Roots,
    watch_leaf,
    watch_roots,
)

__all__ = ["ConsulProvider"]

RETRY = 5.0
"""Seconds until what was refused is looked at again: a clock that was wrong is put right without Consul's noticing."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ConsulProvider:
    """Follows the certificate of one service.

    Args:
        consul: makes a client of Consul; called on the background loop.
        service: our own name.
        examine: makes material of what Consul gives.
        now: the wall clock, with a time zone.
        sleep: takes seconds.
    """

    def __init__(
        self,
        consul: Callable[[], Consul],
        service: str,
        *,
        examine: Examine = examine_here,
        now: Callable[[], datetime] = _utc_now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._consul = consul
        self._service = service
        self._examine = examine
        self._now = now
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"<ConsulProvider of {self._service!r}>"

    async def run(self, publish: Publish) -> None:
        """Publish what the two watches tell, until cancelled."""
        consul = await self._open(publish)
        told = _Told(publish, self._examine, self._now)
        try:
            async with asyncio.TaskGroup() as tasks:
                leafs, roots = watch_leaf(consul, self._service), watch_roots(consul)
                tasks.create_task(_follow("certificate", leafs, told))
                tasks.create_task(_follow("roots", roots, told))
                tasks.create_task(self._retry(told))
        finally:
            await consul.aclose()

    async def _open(self, publish: Publish) -> Consul:
        words = ""
        while True:
            try:
                return self._consul()
            except (OSError, ValueError) as error:  # a token file or certificate that cannot be read
                if str(error) != words:
                    words = str(error)
                    publish(Trouble("away", f"no client of Consul could be made: {words}"))
            await self._sleep(RETRY)

    async def _retry(self, told: _Told) -> None:
        while True:
            await self._sleep(RETRY)
            if told.refused:
                await told.try_again()


@dataclass(slots=True)
class _Told:
    """What Consul has told in one run, and what was made of it."""

    publish: Publish
    examine: Examine
    now: Callable[[], datetime]
    leaf: Leaf | None = None
    roots: Roots | None = None
    refused: str = ""
    away: set[str] = field(default_factory=set)
    denied: dict[str, str] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def heard(self, value: Leaf | Roots) -> None:
        if isinstance(value, Leaf):
            self.leaf = value
        else:
            self.roots = value
        await self.try_again()

    async def try_again(self) -> None:
        async with self.turn:
            if self.leaf is not None and self.roots is not None:
                await self._examine(self.leaf, self.roots)

    async def _examine(self, leaf: Leaf, roots: Roots) -> None:
        trusted = "".join(f"{root.pem.strip()}\n" for root in roots.roots)
        try:
            material = await self.examine(
                leaf.cert_pem, leaf.key_pem, trusted, now=self.now(), trust_domain=roots.trust_domain, rooted=False
            )
        except BadMaterial as error:
            if str(error) != self.refused:
                self.refused = str(error)
                self.publish(Trouble("refused", f"what Consul gave for {leaf.service} is refused: {error}"))
            return
        self.refused = ""
        self.publish(material)

    def lost(self, what: str, error: RegistryError) -> None:
        if isinstance(error, Denied | Rejected):  # concerns one question only, and has words of its own
            if self.denied.get(what) != str(error):
                self.denied[what] = str(error)
                self.publish(Trouble("refused", str(error)))
            return
        if not self.away:
            self.publish(Trouble("away", str(error)))
        self.away.add(what)

    async def back(self, what: str) -> None:
        self.away.discard(what)
        self.denied.pop(what, None)
        if not (self.away or self.denied or self.refused):
            await self.try_again()  # so that the trouble is over although nothing changed


async def _follow(
    what: str, events: AsyncGenerator[Changed[Leaf] | Changed[Roots] | Lost | Back, None], told: _Told
) -> None:
    async with aclosing(events):
        async for event in events:
            match event:
                case Changed(answer):
                    await told.heard(answer.value)
                case Lost(error, _):
                    told.lost(what, error)
                case Back():
                    await told.back(what)

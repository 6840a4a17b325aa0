"""Watches of Consul that never end: values when they change, and whether Consul is there.

A watch yields
    Changed(answer)  the first answer and each whose value differs from the last
    Lost(error, …)   Consul cannot be used: once at the start of an outage, and once for each further distinct error
    Back(away)       the outage is over; a `Changed` follows at once if the value is another one

After `Changed` or `Back` the source is healthy; after `Lost` what was last known stays in force. A fault of Consul is
never raised: garbage, 403, 500, silence and absence are all `Lost`, followed by a pause and the next query. Only a name
that no Consul could know is raised (ValueError), before the first query.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from meshsdk_registry.connect_model import Intention, Leaf, Roots
from meshsdk_registry.consul import Consul
from meshsdk_registry.errors import RegistryError
from meshsdk_registry.index import BlockingQuery
from meshsdk_registry.model import Answer, Instance, KeyValue
from meshsdk_registry.names import check_prefix, check_service
from meshsdk_registry.outage import Back, Lost, Outage

__all__ = ["WAIT", "Changed", "watch_instances", "watch_intentions", "watch_keys", "watch_leaf", "watch_roots"]

T = TypeVar("T")

WAIT = 30.0
"""Seconds a query blocks. A host that vanished without closing its connections is noticed after this, a sixteenth and
the client's timeout (37 s in all); shorter waits notice sooner and cost one small request per watch and wait."""

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Changed(Generic[T]):
    """A value that differs from the last one told."""

    answer: Answer[T]


def watch_instances(
    consul: Consul,
    service: str,
    *,
    datacenter: str | None = None,
    wait: float = WAIT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Sleep = asyncio.sleep,
    rng: random.Random | None = None,
) -> AsyncGenerator[Changed[tuple[Instance, ...]] | Lost | Back, None]:
    """Watch all instances of a service, healthy or not. Close the generator (`aclose`) to stop.

    Args:
        wait: seconds a query blocks, at most 240.
        clock: monotonic seconds.
    """
    check_service(service)

    def ask(index: int) -> Awaitable[Answer[tuple[Instance, ...]]]:
        return consul.instances(service, index=index, wait=wait, datacenter=datacenter)

    return _watch(ask, clock, sleep, rng or random.Random())


def watch_keys(
    consul: Consul,
    prefix: str,
    *,
    wait: float = WAIT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Sleep = asyncio.sleep,
    rng: random.Random | None = None,
) -> AsyncGenerator[Changed[tuple[KeyValue, ...]] | Lost | Back, None]:
    """Watch all keys under a prefix, which need not exist yet. See `watch_instances` for the arguments."""
    check_prefix(prefix)

    def ask(index: int) -> Awaitable[Answer[tuple[KeyValue, ...]]]:
        return consul.keys(prefix, index=index, wait=wait)

    return _watch(ask, clock, sleep, rng or random.Random())


def watch_leaf(
    consul: Consul,
    service: str,
    *,
    wait: float = WAIT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Sleep = asyncio.sleep,
    rng: random.Random | None = None,
) -> AsyncGenerator[Changed[Leaf] | Lost | Back, None]:
    """Watch a service's certificate: the agent renews it in time. See `watch_instances` for the arguments."""
    check_service(service)

    def ask(index: int) -> Awaitable[Answer[Leaf]]:
        return consul.leaf(service, index=index, wait=wait)

    return _watch(ask, clock, sleep, rng or random.Random())


def watch_roots(
    consul: Consul,
    *,
    wait: float = WAIT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Sleep = asyncio.sleep,
    rng: random.Random | None = None,
) -> AsyncGenerator[Changed[Roots] | Lost | Back, None]:
    """Watch the CA's roots, which a rotation changes. See `watch_instances` for the arguments."""

    def ask(index: int) -> Awaitable[Answer[Roots]]:
        return consul.roots(index=index, wait=wait)

    return _watch(ask, clock, sleep, rng or random.Random())


def watch_intentions(
    consul: Consul,
    *,
    wait: float = WAIT,
    clock: Callable[[], float] = time.monotonic,
    sleep: Sleep = asyncio.sleep,
    rng: random.Random | None = None,
) -> AsyncGenerator[Changed[tuple[Intention, ...]] | Lost | Back, None]:
    """Watch who may call whom. See `watch_instances` for the arguments."""

    def ask(index: int) -> Awaitable[Answer[tuple[Intention, ...]]]:
        return consul.intentions(index=index, wait=wait)

    return _watch(ask, clock, sleep, rng or random.Random())


async def _watch(
    ask: Callable[[int], Awaitable[Answer[T]]], clock: Callable[[], float], sleep: Sleep, rng: random.Random
) -> AsyncGenerator[Changed[T] | Lost | Back, None]:
    query, outage, last = BlockingQuery(clock()), Outage(), None
    while True:
        try:
            answer = await ask(query.index)
        except RegistryError as error:
            if lost := outage.failed(error, clock()):
                yield lost
            await sleep(query.failed(rng))
            continue
        if back := outage.answered(clock()):
            yield back
        changed = last is None or answer.value != last.value
        pause = query.answered(answer.index, changed=changed, now=clock())
        if changed:
            last = answer
            yield Changed(answer)
        if pause:
            await sleep(pause)

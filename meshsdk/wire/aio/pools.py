"""The connections of one loop, by endpoint and by the service it is called as."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

from meshsdk.core.model import Endpoint
from meshsdk.wire.aio.awake import Awake
from meshsdk.wire.aio.pool import Pool
from meshsdk.wire.aio.watch import Watch
from meshsdk.wire.http1 import Limits
from meshsdk.wire.pooling import Pooling
from meshsdk.wire.security import Secure

__all__ = ["Pools"]

# How often idle connections are looked through, in seconds.
_SWEEP_EVERY: Final = 1.0


class Pools:
    """The pools of one loop."""

    def __init__(self, clock: Callable[[], float], limits: Limits, pooling: Pooling, secure: Secure) -> None:
        self.clock = clock
        self.limits = limits
        self.pooling = pooling
        self.secure = secure
        self.loop = asyncio.get_running_loop()
        self.watch = Watch(self.loop, clock)
        self.awake = Awake(self.loop, clock)
        self.retired: set[Pool] = set()  # that still carry something
        self._pools: dict[tuple[str, int, str], Pool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeping: asyncio.TimerHandle | None = None

    def pool(self, endpoint: Endpoint, limit: int, service: str = "") -> Pool:
        """The pool of an endpoint."""
        key = (endpoint.address, endpoint.port, service)
        pool = self._pools.get(key)
        if pool is None:
            self._pools[key] = pool = Pool(self, endpoint, limit, service)
        elif pool.limit != limit:
            pool.allow(limit)
        pool.endpoint = endpoint  # what it says of itself may be new
        return pool

    def retire(self, gone: Collection[Endpoint], service: str = "") -> None:
        """Forget these endpoints of `service`."""
        for endpoint in gone:
            pool = self._pools.pop((endpoint.address, endpoint.port, service), None)
            if pool is not None:
                pool.retire()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` until it ends or everything is closed."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def sweep_later(self) -> None:
        """There is an idle connection to be looked after."""
        if self._sweeping is None:
            self._sweeping = self.loop.call_later(_SWEEP_EVERY, self._sweep)

    async def close(self) -> None:
        """Close every connection, in use or not."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        pools, self._pools = self._pools, {}
        for pool in (*pools.values(), *self.retired):
            pool.drop()
        self.retired.clear()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.watch.close()
        await asyncio.sleep(0)  # a transport closes its socket in the loop's next turn

    def _sweep(self) -> None:
        self._sweeping = None
        now = self.clock()
        for key, pool in tuple(self._pools.items()):
            if pool.sweep(now):
                del self._pools[key]
        if any(not pool.resting for pool in self._pools.values()):
            self.sweep_later()

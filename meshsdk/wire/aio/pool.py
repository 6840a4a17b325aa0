"""The connections of one loop to one endpoint, and who waits for them.

Rule 1  A send takes the newest idle connection, or waits: for the first that comes free, or for one opened on its
        behalf as long as there are fewer than allowed. Whichever is first serves it; the other is kept idle.
Rule 2  Waiting sends are served in their order, and each is either granted a connection or refused, once.
Rule 3  Another limit closes no connection that it allows: a policy that changes costs no handshakes.
Rule 4  A pool that is retired keeps nothing: a connection of it closes when its send ends, and who waits gets another,
        secured as is the rule by now.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

from meshsdk.core.model import Endpoint, Failure, Phase
from meshsdk.wire.aio.connection import Connection, Owner
from meshsdk.wire.aio.dial import dial
from meshsdk.wire.engine import Bounds
from meshsdk.wire.failures import busy, closed, connect_timed_out, crowded, late, unconnected
from meshsdk.wire.looking import Looking
from meshsdk.wire.sockets import quiet

if TYPE_CHECKING:
    from meshsdk.wire.aio.pools import Pools

__all__ = ["Pool", "Waiter"]

# After how long a pool that nobody used is forgotten, in seconds.
_FORGET_AFTER: Final = 60.0

# Seconds. Nobody waits longer for those that are open, however long opening one takes; and where that takes less than a
# timer can tell, one is opened at once.
_MOST_PATIENCE: Final = 0.1
_GRAIN: Final = 0.002


class Waiter:
    """A send that waits for a connection; made by the engine, or by whoever works with callbacks.

    Attributes:
        since: when it began to wait.
        dialing: a connection is being opened on its behalf.
    """

    __slots__ = ("_pool", "bounds", "dialing", "since")

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.since = 0.0
        self.dialing = False
        self._pool: Pool | None = None

    def granted(self, connection: Connection) -> None:
        """Here is one; it is the waiter's now."""
        raise NotImplementedError

    def refused(self, failure: Failure) -> None:
        """There will be none."""
        raise NotImplementedError

    def due(self) -> float:
        """Opening a connection has a bound of its own."""
        return inf if self.dialing else min(self.bounds.deadline, self.since + self.bounds.pool)

    def overdue(self, now: float) -> None:  # noqa: ARG002 - the watch's interface
        """It waited too long."""
        if self._pool is not None:
            self._pool.refuse(self, busy(self.bounds.max_connections))

    def leave(self) -> None:
        """Wait no longer."""
        if self._pool is not None:
            self._pool.forget(self)


class Pool(Owner):
    """The connections to one endpoint."""

    __slots__ = (
        "_ahead",
        "_ahead_bounds",
        "_alarm",
        "_dialing",
        "_home",
        "_idle",
        "_open",
        "_patience",
        "_retired",
        "_secured",
        "_waiting",
        "endpoint",
        "limit",
        "looking",
        "service",
        "used_at",
    )

    def __init__(self, home: Pools, endpoint: Endpoint, limit: int, service: str) -> None:
        self.endpoint = endpoint
        self.service = service
        self.limit = limit
        self.used_at = 0.0
        self.looking = Looking(home.pooling.look)
        self._home = home
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._waiting: deque[Waiter] = deque()
        self._dialing = 0
        self._ahead = 0  # so many are still to be opened that nobody waits for
        self._ahead_bounds = Bounds()
        self._retired = False
        self._secured = False  # the last connection was
        self._patience = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    def take(self, now: float) -> Connection | None:
        """The newest idle connection that is still good."""
        self.used_at = now
        idle = self._idle
        pooling = self._home.pooling
        while idle:
            connection = idle.pop()
            rested, aged = now - connection.idle_since, now - connection.opened
            keep = pooling.keep_secured if self._secured else pooling.keep_alive
            if rested < keep and aged < pooling.max_age and connection.usable(now):
                return connection
            connection.close()
        return None

    def enqueue(self, waiter: Waiter) -> None:
        """Let `waiter` wait for a connection, opening one if that is allowed."""
        idle = self.take(self._home.clock())
        if idle is not None:
            waiter.granted(idle)
            return
        if len(self._waiting) >= self._home.pooling.max_pending:
            waiter.refused(crowded(len(self._waiting)))
            return
        waiter._pool = self  # noqa: SLF001 - a waiter's pool is the pool's to set
        waiter.since = self.used_at
        if self._retired:
            self._home.retired.add(self)
        self._waiting.append(waiter)
        self._dial_for(waiter)
        self._home.watch.add(waiter, waiter.due())

    def warm(self, count: int, bounds: Bounds) -> None:
        """Open connections ahead, until `count` are open or were tried; no more at a time than for sends."""
        self._ahead = min(count, self.limit or count) - len(self._open) - self._dialing
        self._ahead_bounds = bounds
        self._dial_ahead()

    def allow(self, limit: int) -> None:
        """So many connections from now on: those beyond close as soon as they are free, and who waits may open more."""
        self.limit = limit
        while self._idle and self._above_limit:
            self._idle.pop(0).close()
        self._dial_all()

    @property
    def _above_limit(self) -> bool:
        return 0 < self.limit < len(self._open)

    def release(self, connection: Connection) -> None:
        """A connection is free again: the next waiter's, unless something lies behind the reply it has read, such as
        the end of a server that closes without a word; or idle, and looked at when it is taken.
        """
        if self._waiting and connection.alive and not quiet(connection.transport.get_extra_info("socket")):
            connection.close()
        else:
            self._offer(connection)

    def _offer(self, connection: Connection) -> None:
        now = self._home.clock()
        connection.idle_since = now
        if self._retired or now - connection.opened >= self._home.pooling.max_age or self._above_limit:
            connection.close()
        elif self._waiting:
            self._grant(self._waiting[0], connection)
        else:
            self._idle.append(connection)
            self._home.sweep_later()

    def gone(self, connection: Connection) -> None:
        """A connection is closed; one who waits may open another."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._dial_next()
        self._forget_self()

    def refuse(self, waiter: Waiter, failure: Failure) -> None:
        """Tell a waiter that there will be none."""
        self.forget(waiter)
        waiter.refused(failure)

    def forget(self, waiter: Waiter) -> None:
        """It waits no longer; a connection opened on its behalf is for others."""
        waiter._pool = None  # noqa: SLF001
        with contextlib.suppress(ValueError):
            self._waiting.remove(waiter)
        self._home.watch.discard(waiter)
        self._forget_self()

    def retire(self) -> None:
        """Close what is idle, and the rest when it is free."""
        self._begin_end()
        self._dial_all()  # what is open serves nobody any more

    def drop(self) -> None:
        """Close everything, whatever it carries."""
        self._begin_end()
        for waiter in tuple(self._waiting):
            self.refuse(waiter, closed(Phase.NOT_CONNECTED))
        self._calm()
        for connection in tuple(self._open):
            connection.shut()

    def sweep(self, now: float) -> bool:
        """Close what was idle for too long; says whether the pool is of no use any more."""
        pooling = self._home.pooling
        keep = now - (pooling.keep_secured if self._secured else pooling.keep_alive)
        while self._idle and self._idle[0].idle_since <= keep:  # the oldest come first
            self._idle.pop(0).close()
        busy_ = self._open or self._dialing or self._waiting
        return not busy_ and now - self.used_at > _FORGET_AFTER

    @property
    def resting(self) -> bool:
        """Nothing is idle here."""
        return not self._idle

    def _begin_end(self) -> None:
        self._retired = True
        self._ahead = 0
        self._home.retired.add(self)
        while self._idle:
            self._idle.pop().close()

    def _forget_self(self) -> None:
        if self._retired and not (self._open or self._dialing or self._waiting):
            self._home.retired.discard(self)

    def _grant(self, waiter: Waiter, connection: Connection) -> None:
        self.forget(waiter)
        waiter.granted(connection)

    def _dial_next(self) -> bool:
        """Open a connection for the first for whom none is being opened, if it is time; says whether one is opened."""
        if self._dialing >= len(self._waiting):
            return False  # what is being opened already serves them all, whoever it was opened for
        for waiter in self._waiting:
            if not waiter.dialing:
                return self._dial_for(waiter)
        return False

    def _dial_all(self) -> None:
        for waiter in tuple(self._waiting):
            if not waiter.dialing:
                self._dial_for(waiter)

    def _dial_for(self, waiter: Waiter) -> bool:
        if not self._may_dial:
            return False  # it is served by one of those that are being opened, or by the next
        if (left := self._patience_of(waiter)) > 0:
            if self._alarm is None:
                self._alarm = self._home.loop.call_later(left, self._lose_patience)
            return False
        waiter.dialing = True
        self._dial(waiter, waiter.bounds)
        return True

    def _patience_of(self, waiter: Waiter) -> float:
        """Seconds for which it still waits for one of those that are open."""
        if self._patience < _GRAIN or self._retired or len(self._open) + self._dialing < self._home.pooling.eager:
            return 0.0
        return waiter.since + self._patience - self._home.clock()

    def _lose_patience(self) -> None:
        self._alarm = None
        while self._dial_next():
            pass

    def _calm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _dial_ahead(self) -> None:
        while self._ahead > 0 and self._may_dial:
            self._dial(None, self._ahead_bounds)

    @property
    def _may_dial(self) -> bool:
        if self._dialing >= self._home.pooling.dials:
            return False
        return not self.limit or len(self._open) + self._dialing < self.limit

    def _dial(self, waiter: Waiter | None, bounds: Bounds) -> None:
        self._dialing += 1
        self._ahead = max(self._ahead - 1, 0)  # whoever it is for
        self._home.spawn(self._connect(waiter, bounds))

    async def _connect(self, waiter: Waiter | None, bounds: Bounds) -> None:
        """Open a connection and give it to whoever waits first; a failure is told to the one it was opened for."""
        retired, began = self._retired, self._home.clock()
        try:
            opened = await self._opened(bounds)
        finally:
            self._dialing -= 1
        if isinstance(opened, Failure):
            if waiter is not None and waiter._pool is self:  # noqa: SLF001
                self.refuse(waiter, opened)
            self._refuse_late(opened)
        else:
            self._open.add(opened)
            self._patience = min(self._home.clock() - began, _MOST_PATIENCE)
            self._calm()  # whoever waits may have lost patience by now
            if retired and self._waiting:
                self._grant(self._waiting[0], opened)
            else:  # which closes one that was begun before (rule 4)
                self._offer(opened)
            if waiter is not None and waiter._pool is self:  # noqa: SLF001 - one who waited longer got it
                waiter.dialing = False
                self._home.watch.sooner(waiter.due())
        self._dial_next()
        self._dial_ahead()
        self._forget_self()

    def _refuse_late(self, failure: Failure) -> None:
        """Those for whom no connection could be opened yet do not wait longer than opening one may take."""
        now = self._home.clock()
        for waiter in tuple(self._waiting):
            if not waiter.dialing and now - waiter.since >= waiter.bounds.connect:
                self.refuse(waiter, failure)

    async def _opened(self, bounds: Bounds) -> Connection | Failure:
        home = self._home
        left = bounds.deadline - home.clock()
        bound = asyncio.timeout(_none_if_inf(min(left, bounds.connect)))
        try:
            async with bound:
                security = home.secure(self.endpoint, self.service)
                self._secured = security is not None
                connection = await dial(self.endpoint, security, self._make)
        except TimeoutError as error:
            if not bound.expired():
                return unconnected(error)  # the system's own patience ended
            if left > bounds.connect:
                return connect_timed_out(bounds.connect)
            return late(Phase.NOT_CONNECTED, in_body=False, overdue=True)
        except Exception as error:  # noqa: BLE001 - what the caller's `secure` or check raises is for whoever waits
            return unconnected(error)
        return connection.ended or connection

    def _make(self) -> Connection:
        home = self._home
        return Connection(self, home.watch, home.clock, home.limits)


def _none_if_inf(seconds: float) -> float | None:
    return None if seconds == inf else seconds

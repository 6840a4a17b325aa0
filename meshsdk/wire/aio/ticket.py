"""The turn of a send that awaits its connection."""

from __future__ import annotations

import asyncio

from meshsdk.core.model import Failure, TransportFailure
from meshsdk.wire.aio.connection import Connection
from meshsdk.wire.aio.pool import Pool, Waiter
from meshsdk.wire.engine import Bounds

__all__ = ["connection_of"]


class _Ticket(Waiter):
    """A send that awaits its connection."""

    __slots__ = ("_connection", "_future")

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(bounds)
        self._future: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._connection: Connection | None = None

    @classmethod
    async def wait(cls, pool: Pool, bounds: Bounds) -> Connection:
        """Wait for a connection of `pool`; raises TransportFailure where there is none to be had."""
        ticket = cls(bounds)
        pool.enqueue(ticket)
        try:
            return await ticket._future
        except asyncio.CancelledError:
            ticket.leave()
            if ticket._connection is not None:  # granted, and cancelled before it was noticed
                pool.release(ticket._connection)
            elif ticket._future.done() and not ticket._future.cancelled():
                ticket._future.exception()  # refused likewise; asyncio complains of what nobody looked at
            raise

    def granted(self, connection: Connection) -> None:
        """Here is one."""
        self._connection = connection
        if self._future.cancelled():
            return
        self._future.set_result(connection)

    def refused(self, failure: Failure) -> None:
        """There will be none."""
        if not self._future.done():
            self._future.set_exception(TransportFailure(failure))


async def connection_of(pool: Pool, bounds: Bounds) -> Connection:
    """Wait until `pool` has a connection that takes a request; raises TransportFailure where none is to be had."""
    while True:
        connection = await _Ticket.wait(pool, bounds)
        if connection.startable:
            return connection
        if connection.ended is not None:  # else it was an older one, and closed between being granted and being noticed
            raise TransportFailure(connection.ended)

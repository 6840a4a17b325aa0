"""CONNECT: the app asks for a connection to a host outside the mesh, and gets it as a tunnel (RFC 9110, 9.3.6)."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, Final

from meshsdk.core.model import Call, Phase, TransportFailure
from meshsdk.drive import adrive
from meshsdk.errors import CallError
from meshsdk.wire.failures import connect_timed_out, late, unconnected
from meshsdk_sidecar.proxy.downstream import Downstream
from meshsdk_sidecar.proxy.held import Held, connect
from meshsdk_sidecar.proxy.joined import Joined
from meshsdk_sidecar.proxy.work import Waiting

if TYPE_CHECKING:
    from meshsdk.core.attempt import Attempt
    from meshsdk.core.cluster import Cluster
    from meshsdk.wire.aio.pools import Pools

__all__ = ["Connecting"]

log = logging.getLogger("meshsdk.sidecar")

_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"


class _Reached:
    """A connection that stands, as a driver sees a reply."""

    status = 200
    retry_after = None

    def __init__(self, held: Held) -> None:
        self.held = held

    async def aclose(self) -> None:
        """Let go of it."""
        self.held.abort()


class Connecting(Waiting):
    """One request for a connection, and the connection while it lasts: a call of its own.

    Args:
        downstream: the client's connection.
        cluster: the host, as a cluster of one.
        pools: whose watch and clock hold here too.
        deadline: until when it must stand, on that clock; None for no bound. The tunnel has none.
    """

    __slots__ = ("_cluster", "_deadline", "_downstream", "_joined", "_pools", "_task")

    def __init__(self, downstream: Downstream, cluster: Cluster, pools: Pools, deadline: float | None) -> None:
        self._downstream = downstream
        self._cluster = cluster
        self._pools = pools
        self._deadline = deadline
        self._joined: Joined | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether the client was told that it stands."""
        return self._joined is not None

    def begin(self) -> None:
        """Open it."""
        self._task = asyncio.get_running_loop().create_task(self._open())

    def abandon(self) -> None:
        """The client is gone."""
        if self._joined is not None:
            self._joined.abort()
        elif self._task is not None:
            self._task.cancel()

    async def _open(self) -> None:
        exchange = self._cluster.exchange(Call("CONNECT", deadline=self._deadline))
        try:
            reached, attempt = await adrive(exchange, self._dial)
        except CallError as error:
            log.warning("%s", error)
            if self._downstream.work is self:
                self._downstream.fail(error)
            return
        held = reached.held
        if self._downstream.work is not self:  # it went away in the very moment
            held.abort()
            exchange.abandon(attempt)
            return
        self._joined = Joined(
            self._downstream,
            held.transport,
            exchange,
            attempt,
            watch=self._pools.watch,
            clock=self._pools.clock,
            to_left=_ESTABLISHED + bytes(held.kept),
            ended=lambda _: None,
            right_done=held.done,
        )

    async def _dial(self, attempt: Attempt) -> _Reached:
        left = attempt.deadline - self._pools.clock()
        bound = min(attempt.connect_timeout, left)
        try:
            async with asyncio.timeout(None if bound == inf else bound):
                return _Reached(await connect(attempt.endpoint, None))
        except TimeoutError as error:
            failure = late(Phase.NOT_CONNECTED, False, True) if bound == left else connect_timed_out(bound)
            raise TransportFailure(failure) from error
        except (OSError, UnicodeError) as error:
            raise TransportFailure(unconnected(error)) from error

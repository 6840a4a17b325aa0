"""TCP through the mesh: a connection that is accepted becomes one to an instance, and both a tunnel.

Rule 1  A connection is a call: one exchange, on the cluster of its service. What the policy says of calls it says of
        connections: `limits.max_requests` counts those that are open, `timeouts.connect` and `timeouts.attempt` bound
        a try, `timeouts.idle` the silence after; what a balancer learns of is the time to connect. A deadline for the
        whole, `timeouts.request`, bounds the way to a connection and not its life.
Rule 2  Nothing is sent before a connection stands, so every try that fails may be made anew elsewhere.
Rule 3  What comes meanwhile is kept, `HELD` bytes of it; servers may speak first, and either end may be quick to end.
Rule 4  Whoever is refused sees a reset, never an empty answer that looks whole; the log and the metrics say why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, TypeVar, cast

from meshsdk.core.attempt import Attempt
from meshsdk.core.cluster import Cluster
from meshsdk.core.exchange import Exchange
from meshsdk.core.model import Call, Endpoint, Failure, Phase, TransportFailure
from meshsdk.drive import adrive
from meshsdk.errors import MeshError
from meshsdk.server.guard import CONNECTION
from meshsdk.wire.aio.connection import Connection
from meshsdk.wire.aio.dial import dial
from meshsdk.wire.aio.watch import Watch
from meshsdk.wire.failures import busy, connect_timed_out, late, lost, unconnected
from meshsdk.wire.security import PeerRejected, Secure, Security
from meshsdk.wire.sockets import prompt
from meshsdk_sidecar.proxy.tls import Secured
from meshsdk_sidecar.proxy.tunnel import ABORTED, ENDED, IDLE, LEFT_LOST, RIGHT_LOST, STUCK, Tunnel, TunnelEnd, reset

__all__ = ["Carried", "Carrier", "Held", "TcpUpstream", "connect", "in_time"]

log = logging.getLogger("meshsdk.sidecar")

P = TypeVar("P", bound=asyncio.Protocol)

HELD = 64 * 1024

# CONNECT's answer where the way is open (RFC 9110, 9.3.6): what exchange and logs are told of a connection that stands.
_OPEN = 200

# Ends that nobody broke off: what the instance did was good.
_UNBROKEN = frozenset((ENDED, IDLE, STUCK))


class Held(asyncio.Protocol):
    """A connection that waits to be joined to another; what comes is kept.

    Attributes:
        kept: what came.
        done: the peer will send no more.
    """

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.kept = bytearray()
        self.done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self.transport = cast(asyncio.Transport, transport)
        in_time(self.transport)

    def take(self, transport: asyncio.Transport) -> None:
        """Be the protocol of a connection that stands, or is about to."""
        self.transport = transport
        transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self.kept += data
        if len(self.kept) >= HELD:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """The peer will send no more."""
        self.done = True
        return self.transport.can_write_eof()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()


async def connect(endpoint: Endpoint, security: Security | None) -> Held:
    """Open a connection that can be half-closed, in TLS too; bounded by the caller.

    Raises:
        OSError, UnicodeError, PeerRejected: as `meshsdk.wire.aio.dial.dial`.
    """
    if security is None:
        return await _opened(endpoint, Held())
    if security.context.check_hostname and not security.server_hostname:
        raise PeerRejected("the TLS context checks host names and has none to check; set server_hostname")
    secured, held = Secured(security.context, server_hostname=security.server_hostname), Held()
    held.take(secured)
    await _opened(endpoint, secured)
    try:
        await secured.shaken()
        if security.check is not None:
            security.check(secured.get_extra_info("ssl_object"))
    except BaseException:
        secured.abort()
        raise
    return held


async def _opened(endpoint: Endpoint, protocol: P) -> P:
    """Dial in clear; what `dial` asks of a protocol is its `transport` and its `abort`."""
    await dial(endpoint, None, cast("Callable[[], Connection]", lambda: protocol))
    return protocol


class _Reached:
    """A connection to an instance, as a driver sees a reply."""

    status = _OPEN
    retry_after = None

    def __init__(self, held: Held, place: _Place) -> None:
        self.held = held
        self.place = place

    async def aclose(self) -> None:
        """Let go of it."""
        self.held.abort()
        self.place.leave()


class _Place:
    """The connections to one instance, of which the policy may allow so many.

    Whoever finds them all taken waits its turn: a connection, unlike a request, has no other it could share.
    """

    __slots__ = ("_taken", "_waiting")

    def __init__(self) -> None:
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def unused(self) -> bool:
        return not (self._taken or self._waiting)

    async def enter(self, limit: int) -> None:
        if limit and self._taken >= limit:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.leave()  # it was granted, and is of no use any more
                else:
                    with contextlib.suppress(ValueError):  # one that is cancelled was passed over already
                        self._waiting.remove(turn)
                raise
        else:
            self._taken += 1

    def leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # who leaves hands its place on
                return
        self._taken -= 1


class Carried(Held):
    """One connection that was accepted, on its way and while it lasts.

    Args:
        carrier: where it belongs.
    """

    def __init__(self, carrier: Carrier) -> None:
        super().__init__()
        self._carrier = carrier
        self._task: asyncio.Task[None] | None = None
        self._tunnel: Tunnel | None = None
        self._settled = self._lost = False
        self._exchange: Exchange
        self._attempt: Attempt
        self._place: _Place

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look for an instance."""
        super().connection_made(transport)
        self.begin()

    def begin(self) -> None:
        """Look for an instance."""
        self._carrier.opened(self)
        self._task = asyncio.get_running_loop().create_task(self._reach())
        self._task.add_done_callback(self._reached)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's interface
        """The client went away before it was joined to anything."""
        self._lost = True
        if self._task is not None:
            self._task.cancel()

    @property
    def joined(self) -> bool:
        """Whether it came so far as to be connected to an instance."""
        return self._tunnel is not None

    def abort(self) -> None:
        """Break it off, however far it is."""
        if self._tunnel is not None:
            self._tunnel.abort()
        elif self._task is not None:
            self._task.cancel()

    async def _reach(self) -> None:
        carrier = self._carrier
        try:
            cluster = await carrier.cluster()
            self._exchange = cluster.exchange(Call(CONNECTION, "/"))
            reached, self._attempt = await adrive(self._exchange, lambda attempt: carrier.dial(cluster, attempt))
        except MeshError as error:
            log.warning("a connection to %s is refused: %s", carrier.name, error)
            self._refuse(error)
        else:
            self._join(reached)
        finally:
            self._task = None

    def _reached(self, task: asyncio.Task[None]) -> None:
        """However it went; a task that is cancelled early has not even begun."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("a connection to %s is closed by a mistake of ours", self._carrier.name, exc_info=error)
        if self._tunnel is None:
            self._refuse(error)

    def _join(self, reached: _Reached) -> None:
        held, self._place = reached.held, reached.place
        self._tunnel = Tunnel.join(
            self.transport,
            held.transport,
            ended=self._over,
            watch=self._carrier.watch,
            clock=self._carrier.clock,
            idle=self._attempt.idle_timeout,
            to_left=bytes(held.kept),
            to_right=bytes(self.kept),
            left_done=self.done,
            right_done=held.done,
        )
        self.kept.clear()

    def _refuse(self, error: BaseException | None) -> None:
        """It leads nowhere; None where the client, or we, broke it off."""
        if self._settled:
            return
        if not self._lost:
            reset(self.transport)
        self._settle(error, "" if error is not None else LEFT_LOST if self._lost else ABORTED)

    def _settle(self, error: BaseException | None, why: str) -> None:
        self._settled = True
        self.settled(error, why)
        self._carrier.closed(self)

    def _over(self, end: TunnelEnd) -> None:
        """The tunnel's end is the call's; whose doing it was decides what is learned of the instance."""
        self._place.leave()
        error: BaseException | None = None
        if end.why == RIGHT_LOST:
            failure = lost(Phase.REPLY_STARTED, in_body=True, error=end.error)
            self._exchange.finished(self._attempt, failure)
            error = self._exchange.error(failure)
        elif end.why in _UNBROKEN:
            self._exchange.finished(self._attempt)
        else:
            self._exchange.abandon(self._attempt)
        if end.why != ENDED:
            log.info("a connection to %s ended after %.3f s: %s", self._carrier.name, end.seconds, end.why)
        self._carrier.count(end)
        self._settle(error, end.why)

    def settled(self, error: BaseException | None, why: str) -> None:
        """It is over; for whoever let it in.

        Args:
            error: why there was no connection to the instance, or what became of it.
            why: as a tunnel's; empty where an error says it.
        """


class Carrier:
    """Connections that are accepted somewhere and carried to the instances of a service.

    Args:
        name: of the service, for logs.
        cluster: finds the service; may wait, and raises MeshError where nothing is known of it.
        secure: how to secure connections to its instances.
        watch: rings when a bound is over.
        clock: the watch's.

    Attributes:
        sent, received: bytes towards the instances and back, of connections that have ended.
        ended: how many ended, by why.
    """

    def __init__(
        self,
        name: str,
        cluster: Callable[[], Awaitable[Cluster]],
        *,
        secure: Secure,
        watch: Watch,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.cluster = cluster
        self.watch = watch
        self.clock = clock
        self.sent = self.received = 0
        self._secure = secure
        self._open: dict[Carried, None] = {}
        self._places: dict[str, _Place] = {}

    @property
    def in_flight(self) -> int:
        """Connections that are open, or being opened."""
        return len(self._open)

    @property
    def idle(self) -> bool:
        """Whether there is none."""
        return not self._open

    def protocol(self) -> asyncio.Protocol:
        """For a connection that is accepted; asyncio's `protocol_factory`."""
        return Carried(self)

    def drain(self) -> None:
        """Nothing: only its ends know when a connection of theirs has done its work. They have until `abort`."""

    def abort(self) -> None:
        """Break off whatever is left."""
        for carried in tuple(self._open):
            carried.abort()

    # --- for the connections --------------------------------------------------------------------------

    def opened(self, carried: Carried) -> None:
        """One was accepted."""
        self._open[carried] = None

    def closed(self, carried: Carried) -> None:
        """It is over."""
        self._open.pop(carried, None)

    def count(self, end: TunnelEnd) -> None:
        """What it carried."""
        self.sent += end.to_right
        self.received += end.to_left

    async def dial(self, cluster: Cluster, attempt: Attempt) -> _Reached:
        """Make one try.

        Raises:
            TransportFailure: it failed.
        """
        endpoint, limit = attempt.endpoint, cluster.plan.limits.max_connections_per_endpoint
        place = self._places.setdefault(endpoint.key, _Place())
        try:
            async with asyncio.timeout(_none_if_inf(attempt.deadline - self.clock())):
                await place.enter(limit)
        except TimeoutError:
            raise TransportFailure(busy(limit)) from None
        try:
            return _Reached(await self._connected(endpoint, cluster.service, attempt), place)
        except BaseException:
            place.leave()
            raise
        finally:
            self._forget_unused()

    async def _connected(self, endpoint: Endpoint, service: str, attempt: Attempt) -> Held:
        left = attempt.deadline - self.clock()
        bound = asyncio.timeout(_none_if_inf(min(left, attempt.connect_timeout)))
        try:
            async with bound:
                return await connect(endpoint, self._secure(endpoint, service))
        except TimeoutError as error:
            raise TransportFailure(_late(error, left, attempt, own=bound.expired())) from error
        except Exception as error:  # what `secure` or its check raises is for whoever asked
            raise TransportFailure(unconnected(error)) from error

    def _forget_unused(self) -> None:
        if len(self._places) > 64:  # instances come and go
            self._places = {key: place for key, place in self._places.items() if not place.unused}


class TcpUpstream(Carrier):
    """The way out: a local port whose connections go to one service."""


def _late(error: TimeoutError, left: float, attempt: Attempt, *, own: bool) -> Failure:
    if not own:
        return unconnected(error)  # the system's own patience ended
    if left > attempt.connect_timeout:
        return connect_timed_out(attempt.connect_timeout)
    return late(Phase.NOT_CONNECTED, in_body=False, overdue=True)


def in_time(transport: asyncio.Transport) -> None:
    """Send small writes at once, where there is something that would hold them back."""
    sock: Any = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        prompt(sock)


def _none_if_inf(seconds: float) -> float | None:
    return None if seconds == inf else seconds

"""TCP through the mesh: a connection that is accepted becomes one to an instance, and both a tunnel.

Rule 1  A connection is a call: one exchange, on the cluster of its service. What the policy says of calls it says of
        connections: `limits.max_requests` counts those that are open, `timeouts.connect` and `timeouts.attempt` bound
        a try, `timeouts.idle` the silence after; what a balancer learns of is the time to connect. A deadline for the
        whole, `timeouts.request`, bounds the way to a connection and not its life.
Rule 2  Nothing is sent before a connection stands, so every try that fails may be made anew elsewhere.
Rule 3  What comes meanwhile is kept, 64 KiB of it; servers may speak first, and either end may be quick to end.
Rule 4  Whoever is refused sees a reset, never an empty answer that looks whole; the log and the metrics say why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from math import inf

from meshsdk.core.attempt import Attempt
from meshsdk.core.cluster import Cluster
from meshsdk.core.exchange import Exchange
from meshsdk.core.model import Call, Endpoint, Failure, Phase, TransportFailure
from meshsdk.drive import adrive
from meshsdk.errors import MeshError, Overloaded
from meshsdk.server.guard import CONNECTION
from meshsdk.telemetry.instruments import Reading
from meshsdk.wire.aio.watch import Watch
from meshsdk.wire.failures import busy, connect_timed_out, late, lost, unconnected
from meshsdk.wire.security import Secure
from meshsdk_sidecar.proxy.held import Held, Place, connect
from meshsdk_sidecar.proxy.tunnel import ABORTED, ENDED, IDLE, LEFT_LOST, RIGHT_LOST, STUCK, Tunnel, TunnelEnd, reset

__all__ = ["Carried", "Carrier", "TcpUpstream"]

log = logging.getLogger("meshsdk.sidecar")

# CONNECT's answer where the way is open (RFC 9110, 9.3.6): what exchange and logs are told of a connection that stands.
_OPEN = 200

# Ends that nobody broke off: what the instance did was good.
_UNBROKEN = frozenset((ENDED, IDLE, STUCK))


class _Reached:
    """A connection to an instance, as a driver sees a reply."""

    status = _OPEN
    retry_after = None

    def __init__(self, held: Held, place: Place) -> None:
        self.held = held
        self.place = place

    async def aclose(self) -> None:
        """Let go of it."""
        self.held.abort()
        self.place.leave()


class Carried(Held):
    """One connection that was accepted, on its way and while it lasts.

    Args:
        carrier: where it belongs.

    Attributes:
        tunnel: to an instance; None before it came so far.
    """

    def __init__(self, carrier: Carrier) -> None:
        super().__init__()
        self._carrier = carrier
        self._task: asyncio.Task[None] | None = None
        self.tunnel: Tunnel | None = None
        self._settled = self._lost = False
        self._exchange: Exchange
        self._attempt: Attempt
        self._place: Place

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look for an instance."""
        super().connection_made(transport)
        self.begin()

    def begin(self) -> None:
        """Look for an instance."""
        carrier = self._carrier
        carrier.opened(self)
        if carrier.crowded():
            self._refuse(Overloaded("more connections than limits.connections allows", service=carrier.name))
            return
        self._task = asyncio.get_running_loop().create_task(self._reach())
        self._task.add_done_callback(self._reached)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's interface
        """The client went away before it was joined to anything."""
        self._lost = True
        if self._task is not None:
            self._task.cancel()

    def abort(self) -> None:
        """Break it off, however far it is."""
        if self.tunnel is not None:
            self.tunnel.abort()
        elif self._task is not None:
            self._task.cancel()

    async def _reach(self) -> None:
        carrier = self._carrier
        try:
            cluster = await carrier.cluster()
            self._exchange = cluster.exchange(Call(CONNECTION, "/"))
            reached, self._attempt = await adrive(self._exchange, lambda attempt: carrier.dial(cluster, attempt))
        except MeshError as error:
            carrier.refused(getattr(error, "reason", "") or type(error).__name__, str(error))
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
        if self.tunnel is None:
            self._refuse(error)

    def _join(self, reached: _Reached) -> None:
        held, self._place = reached.held, reached.place
        self.tunnel = Tunnel.join(
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
        refused: told of a connection that is not carried: a word for the metrics, and why.
        crowded: whether the connection that was just opened is one too many.
    """

    direction = "outbound"
    """For the metrics."""

    def __init__(
        self,
        name: str,
        cluster: Callable[[], Awaitable[Cluster]],
        *,
        secure: Secure,
        watch: Watch,
        clock: Callable[[], float],
        refused: Callable[[str, str], None] | None = None,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name = name
        self.crowded = crowded
        self.refused = refused or self._log_refused
        self.cluster = cluster
        self.watch = watch
        self.clock = clock
        self._sent = self._received = 0  # of connections that have ended
        self._secure = secure
        self._open: dict[Carried, None] = {}
        self._places: dict[str, Place] = {}

    @property
    def in_flight(self) -> int:
        """Connections that are open, or being opened."""
        return len(self._open)

    @property
    def idle(self) -> bool:
        """Whether there is none."""
        return not self._open

    @property
    def sent(self) -> int:
        """Bytes towards the instances so far."""
        return self._sent + sum(carried.tunnel.to_right for carried in self._open if carried.tunnel is not None)

    @property
    def received(self) -> int:
        """Bytes back so far."""
        return self._received + sum(carried.tunnel.to_left for carried in self._open if carried.tunnel is not None)

    def readings(self) -> Iterator[Reading]:
        """For `meshsdk.telemetry.metrics.Metrics.observe_gauges`."""
        labels = (self.name, self.direction)
        yield Reading("mesh.tcp.connections", labels, self.in_flight)
        yield Reading("mesh.tcp.sent", labels, self.sent)
        yield Reading("mesh.tcp.received", labels, self.received)

    def protocol(self) -> asyncio.Protocol:
        """For a connection that is accepted; asyncio's `protocol_factory`."""
        return Carried(self)

    def drain(self) -> None:
        """Nothing: only its ends know when a connection of theirs has done its work. They have until `abort`."""

    def abort(self) -> None:
        """Break off whatever is left."""
        for carried in tuple(self._open):
            carried.abort()

    async def close(self, seconds: float = 0.0) -> None:
        """Break off what is left after so many seconds, and return when nothing of it runs any more."""
        end = self.clock() + seconds
        while self._open and self.clock() < end:  # noqa: ASYNC110 - as in `Plane.close`
            await asyncio.sleep(0.02)
        self.abort()
        while self._open:  # noqa: ASYNC110 - a task that is cancelled needs some turns
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # a transport closes its socket in the loop's next turn

    # --- for the connections --------------------------------------------------------------------------

    def opened(self, carried: Carried) -> None:
        """One was accepted."""
        self._open[carried] = None

    def closed(self, carried: Carried) -> None:
        """It is over."""
        self._open.pop(carried, None)

    def count(self, end: TunnelEnd) -> None:
        """What it carried."""
        self._sent += end.to_right
        self._received += end.to_left

    async def dial(self, cluster: Cluster, attempt: Attempt) -> _Reached:
        """Make one try.

        Raises:
            TransportFailure: it failed.
        """
        endpoint, limit = attempt.endpoint, cluster.plan.limits.max_connections_per_endpoint
        place = self._places.setdefault(endpoint.key, Place())
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

    def _log_refused(self, reason: str, why: str) -> None:
        log.warning("a connection to %s is refused (%s): %s", self.name, reason, why)

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


def _none_if_inf(seconds: float) -> float | None:
    return None if seconds == inf else seconds

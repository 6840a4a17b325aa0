"""TCP from the mesh to the app beside us: who calls is verified by TLS, judged once, and carried.

Rule 1  The first byte tells TLS (0x16, RFC 8446, 5.1) from clear text. Where the policy is strict, clear text is
        refused. Elsewhere a caller that says nothing for `FIRST_BYTE` seconds is one in clear text that waits for the
        app to speak first, as those of MySQL, SMTP and SSH do; one of TLS never waits.
Rule 2  Greeting and handshake have `HANDSHAKE` seconds together. Where `WAITING` callers have not come so far, the
        oldest goes.
Rule 3  A connection is judged by who calls, once, when it comes: what rules ask of requests cannot be seen in it, and
        rules that change are for the connections after, as with Consul's intentions.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from math import inf
from typing import cast

from meshsdk.core.cluster import Cluster
from meshsdk.errors import CallError
from meshsdk.server.inbound import Intake, ServedRequest
from meshsdk.server.listener import HANDSHAKE, WAITING
from meshsdk.server.verified import verified
from meshsdk.wire.aio.tls import Secured
from meshsdk.wire.aio.watch import Watch
from meshsdk.wire.security import in_clear
from meshsdk_sidecar.proxy.held import tune
from meshsdk_sidecar.proxy.tcp import Carried, Carrier
from meshsdk_sidecar.proxy.tunnel import ABORTED, LEFT_LOST, reset

__all__ = ["FIRST_BYTE", "TcpInbound"]

log = logging.getLogger("meshsdk.sidecar")

FIRST_BYTE = 1.0
"""Seconds of silence after which a caller is taken for one in clear text: its TLS would have begun at once."""

_TLS = 0x16


class TcpInbound(Carrier):
    """The way in for TCP. A listener gives it connections as they are accepted. One that has done the handshake itself,
    as `meshsdk.server.listener.Listener`, may too; they cannot be half-closed then.

    Args:
        name: of our service, for logs.
        app: the app, as a cluster of one: under its `limits.max_requests`, `timeouts.connect` and `timeouts.idle`.
        intake: lets callers in and tells of them.
        context: for handshakes; None takes clear text only.
        strict: whether clear text is refused.
        watch: rings when a bound is over.
        clock: the watch's.
        refused, crowded: as of `Carrier`.
    """

    direction = "inbound"

    def __init__(
        self,
        name: str,
        app: Callable[[], Cluster],
        *,
        intake: Intake,
        context: Callable[[], ssl.SSLContext | None],
        strict: Callable[[], bool],
        watch: Watch,
        clock: Callable[[], float],
        refused: Callable[[str, str], None] | None = None,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        async def cluster() -> Cluster:
            return app()

        super().__init__(name, cluster, secure=in_clear, watch=watch, clock=clock, refused=refused, crowded=crowded)
        self.intake = intake
        self.context = context
        self.strict = strict
        self.greeted: dict[_Greeting, None] = {}  # in the order they came

    @property
    def unfinished(self) -> int:
        """Connections whose first byte or handshake is awaited."""
        return len(self.greeted)

    def protocol(self) -> asyncio.Protocol:
        """For a connection that is accepted; asyncio's `protocol_factory`."""
        return _Greeting(self)

    def abort(self) -> None:
        """Break off whatever is left, and who has not come in yet."""
        for greeting in tuple(self.greeted):
            greeting.abort()
        super().abort()


class _Greeting(asyncio.Protocol):
    """A connection before it is known what it speaks and who calls."""

    transport: asyncio.Transport

    def __init__(self, inbound: TcpInbound) -> None:
        self._inbound = inbound
        self._context = inbound.context()
        self._since = inbound.clock()
        self._shaking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        tune(self.transport)
        inbound = self._inbound
        if len(inbound.greeted) >= WAITING:
            next(iter(inbound.greeted)).abort()
        inbound.greeted[self] = None
        inbound.watch.add(self, self.due())
        if self._context is None or transport.get_extra_info("ssl_object") is not None:
            self._let_in(self.transport)

    def data_received(self, data: bytes) -> None:
        context = self._context
        if context is None or data[0] != _TLS:
            self._let_in(self.transport).data_received(data)
            return
        self._shaking = True
        secured = Secured(context, ready=lambda error: self._shaken(secured, error), server_side=True)
        self.transport.set_protocol(cast(asyncio.Protocol, secured))
        secured.connection_made(self.transport)
        secured.data_received(data)

    def eof_received(self) -> None:
        """It said nothing, and closes: a look whether the port is open."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's interface
        self._forget()

    def abort(self) -> None:
        self._forget()
        reset(self.transport)

    def due(self) -> float:
        silent = self._context is not None and not self._shaking and not self._inbound.strict()
        return self._since + (FIRST_BYTE if silent else HANDSHAKE) if self in self._inbound.greeted else inf

    def overdue(self, now: float) -> None:
        if now < self._since + HANDSHAKE and not self._shaking:
            self._let_in(self.transport)
        else:
            log.debug("a caller of %s did not finish its handshake in %g s", self._inbound.name, HANDSHAKE)
            self.abort()

    def _shaken(self, secured: Secured, error: Exception | None) -> None:
        if error is not None:  # the identity has counted and told it
            log.debug("a caller's handshake with %s failed: %s", self._inbound.name, error)
            self._forget()
        elif self in self._inbound.greeted:
            self._let_in(secured)

    def _let_in(self, transport: asyncio.Transport) -> _Caller:
        self._forget()
        caller = _Caller(self._inbound)
        caller.take(transport)
        caller.enter()
        return caller

    def _forget(self) -> None:
        self._inbound.greeted.pop(self, None)
        self._inbound.watch.discard(self)


class _Caller(Carried):
    """One who came in."""

    def __init__(self, inbound: TcpInbound) -> None:
        super().__init__(inbound)
        self._intake = inbound.intake
        self._served: ServedRequest

    def enter(self) -> None:
        """Be judged, and go on or go."""
        found = verified(self.transport.get_extra_info("ssl_object"))
        address = self.transport.get_extra_info("peername")
        self._served = served = self._intake.admit_connection(
            client=str(address[0]) if isinstance(address, tuple) else "", peer=None if found is None else found.peer
        )
        if served.refusal is None:
            self.begin()
            return
        self._carrier.refused(served.rule, f"{served.inbound.peer or 'a caller without an identity'}: {served.reason}")
        served.status = served.refusal.status
        served.end()
        reset(self.transport)

    def settled(self, error: BaseException | None, why: str) -> None:
        """Tell of its end: 200 as of CONNECT, or in an error's place what a request would have been answered."""
        served = self._served
        if self.tunnel is not None:
            served.status = 200
        if isinstance(error, CallError):
            served.flag, served.status = error.flag, served.status or 503
        elif why in {LEFT_LOST, ABORTED}:
            served.flag = "DC"
        served.end(error)

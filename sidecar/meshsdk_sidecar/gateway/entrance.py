"""Connections from outside before they are TLS: who has too many goes at once, who does not finish goes soon.

Rule 1  A client's connections are counted from the first packet to the last, so that handshakes count too.
Rule 2  A handshake has `HANDSHAKE` seconds; where `WAITING` are unfinished, the oldest goes.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from math import inf
from typing import cast

from meshsdk.wire.aio.tls import Secured
from meshsdk.wire.aio.watch import Watch
from meshsdk.wire.sockets import prompt
from meshsdk_sidecar.gateway.clients import Clients
from meshsdk_sidecar.gateway.guest import Guest, peer_of

__all__ = ["HANDSHAKE", "WAITING", "Entrance"]

log = logging.getLogger("meshsdk.gateway")

# Two round trips and a signature; a phone on a bad line takes 2 s.
HANDSHAKE = 10.0
WAITING = 1024


class Entrance:
    """The way in for TLS.

    Args:
        context: for handshakes, asked at each.
        clients: who may have how many connections.
        make: a connection's protocol, once it is secured.
        watch: rings when a handshake takes too long.
        clock: the watch's.
        refused: told of who was turned away: a word, and why.
    """

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        clients: Clients,
        make: Callable[[], Guest],
        *,
        watch: Watch,
        clock: Callable[[], float],
        refused: Callable[[str, str], None],
    ) -> None:
        self.context = context
        self.clients = clients
        self.make = make
        self.watch = watch
        self.clock = clock
        self.refused = refused
        self.shaking: dict[_Entering, None] = {}  # in the order they came

    def protocol(self) -> asyncio.Protocol:
        """For a connection that is accepted; asyncio's `protocol_factory`."""
        return cast(asyncio.Protocol, _Entering(self))

    def abort(self) -> None:
        """Break off whoever has not come in yet."""
        for entering in tuple(self.shaking):
            entering.abort()


class _Entering(Secured):
    """One connection."""

    def __init__(self, entrance: Entrance) -> None:
        super().__init__(entrance.context(), ready=self._entered, server_side=True)
        self._entrance = entrance
        self._since = entrance.clock()
        self._address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        entrance = self._entrance
        self._address = peer_of(transport)
        if not entrance.clients.connected(self._address):
            self._closing = True
            entrance.refused("connections", f"{self._address} has too many (limits.connections_per_client)")
            transport.abort()  # type: ignore[attr-defined]  # of a connection it is a Transport
            return
        prompt(transport.get_extra_info("socket"))
        if len(entrance.shaking) >= WAITING:
            next(iter(entrance.shaking)).abort()
        entrance.shaking[self] = None
        entrance.watch.add(self, self.due())
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._entrance.clients.gone(self._address)
        self._forget()
        super().connection_lost(exc)

    def due(self) -> float:
        return self._since + HANDSHAKE if self in self._entrance.shaking else inf

    def overdue(self, now: float) -> None:  # noqa: ARG002 - the watch's interface
        self._entrance.refused("handshake", f"{self._address}: the TLS handshake took more than {HANDSHAKE:g} s")
        self.abort()

    def _entered(self, error: Exception | None) -> None:
        self._forget()
        if error is not None:
            log.debug("%s: the TLS handshake failed: %s", self._address, error)
        elif not self.is_closing():
            self.carry(self._entrance.make())

    def _forget(self) -> None:
        self._entrance.shaking.pop(self, None)
        self._entrance.watch.discard(self)

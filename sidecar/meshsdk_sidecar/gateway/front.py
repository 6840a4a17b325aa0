"""The public ports: listeners for https and http, on a plane that carries what they let in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from meshsdk.wire.http1 import RequestLimits
from meshsdk_sidecar import sockets
from meshsdk_sidecar.gateway.acme import Challenges
from meshsdk_sidecar.gateway.certificates import Certificates, Pair
from meshsdk_sidecar.gateway.clients import Clients
from meshsdk_sidecar.gateway.config import GatewayConfig, GatewayLimits
from meshsdk_sidecar.gateway.door import GatewayDoor, RedirectDoor
from meshsdk_sidecar.gateway.entrance import Entrance
from meshsdk_sidecar.gateway.fields import Attire
from meshsdk_sidecar.gateway.guest import Guest
from meshsdk_sidecar.gateway.routes import Routes
from meshsdk_sidecar.proxy.plane import Parts, Plane
from meshsdk_sidecar.proxy.work import Door, Patience

__all__ = ["SHAKING", "Front"]

SHAKING = 1.0
"""Seconds that handshakes have which are under way at the end: three round trips of a phone on a bad line."""


class Front:
    """What a gateway carries; to whoever runs the process, it is as a sidecar's `Plane` is.

    Args:
        config: the gateway's file.
        parts: what the plane behind the ports stands on.
        pairs: tells the certificates in force; as of `Certificates`.
        clients: who is connected, and may ask how much; those of this process alone where it is left out.
    """

    def __init__(
        self,
        config: GatewayConfig,
        parts: Parts,
        pairs: Callable[[], Sequence[Pair]],
        clients: Clients | None = None,
    ) -> None:
        self._config = config
        self._servers: list[asyncio.Server] = []
        self._entrance: Entrance | None = None
        self.certificates = Certificates(pairs)
        self.plane = Plane(config.sidecar(), parts)
        self.readings = self.plane.readings
        self.clients = clients or Clients(config.limits, config.trusted_proxies)

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return self.plane.in_flight

    @property
    def connected(self) -> int:
        """Clients' connections that stand, those whose handshake is under way included."""
        return self.plane.connected + (0 if self._entrance is None else len(self._entrance.shaking))

    async def open(self, listening: Mapping[str, Sequence[socket.socket]]) -> None:
        """Serve at the sockets of `https` and `http`, of which each may have several addresses."""
        await self.plane.open({})
        config, plane, clients = self._config, self.plane, self.clients
        routes, attire = Routes(config.routes), Attire(config.headers)
        self._entrance = entrance = Entrance(
            lambda: self.certificates.context,
            clients,
            self._guests(GatewayDoor(plane, routes, clients, attire), attire),
            watch=plane.pools.watch,
            clock=plane.clock,
            refused=partial(plane.refused, "gateway"),
        )
        await self._listen(_of("listeners.https", listening), entrance.protocol)
        if config.listeners.http is not None:
            folder = config.listeners.http.acme
            challenges = None if folder is None else Challenges(folder)
            door = RedirectDoor(plane, routes, clients, config.listeners.https.port, challenges)
            await self._listen(_of("listeners.http", listening), self._guests(door, None))

    async def retire(self) -> None:
        """Accept no more; whoever came in, or is about to, is told with the next answer."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        await self.plane.retire()

    async def drain_inbound(self, seconds: float) -> None:
        """Let nobody in any more, and finish what is in flight, within `seconds`: there is no way but in."""
        await self.close(seconds)

    async def close(self, seconds: float = 0.0) -> None:
        """Close everything; what is in flight has so many seconds, handshakes `SHAKING` of them."""
        clock = self.plane.clock
        began, end = clock(), clock() + seconds
        await self.retire()
        if (entrance := self._entrance) is not None:
            while entrance.shaking and clock() < min(end, began + SHAKING):  # noqa: ASYNC110 - as in the plane
                await asyncio.sleep(0.02)
            entrance.abort()
        await self.plane.close(max(0.0, end - clock()))

    def _guests(self, door: Door, attire: Attire | None) -> partial[Guest]:
        limits = self._config.limits
        patience = Patience(limits.head_timeout, limits.idle_timeout, limits.stall_timeout)
        watch, clock = self.plane.pools.watch, self.plane.clock
        return partial(Guest, door, watch, clock, patience, _sizes(limits), attire)

    async def _listen(self, listening: Sequence[socket.socket], make: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        for sock in listening:
            self._servers.append(await loop.create_server(make, sock=sock, backlog=sockets.BACKLOG))


def _of(name: str, listening: Mapping[str, Sequence[socket.socket]]) -> list[socket.socket]:
    return [each for place, opened in listening.items() if place.partition("[")[0] == name for each in opened]


def _sizes(limits: GatewayLimits) -> RequestLimits:
    usual, head = RequestLimits(), limits.head
    body = usual.body if limits.body is None else limits.body
    return RequestLimits(line=min(usual.line, head), head=head, field=min(usual.field, head), body=body)

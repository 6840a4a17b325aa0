"""The public ports: listeners for https and http, on a plane that carries what they let in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial

from meshsdk.wire.http1 import RequestLimits
from meshsdk_sidecar import sockets
from meshsdk_sidecar.gateway.acme import Challenges
from meshsdk_sidecar.gateway.certificates import Certificates
from meshsdk_sidecar.gateway.clients import Clients
from meshsdk_sidecar.gateway.config import GatewayConfig, GatewayLimits
from meshsdk_sidecar.gateway.door import GatewayDoor, RedirectDoor
from meshsdk_sidecar.gateway.entrance import Entrance
from meshsdk_sidecar.gateway.fields import Attire
from meshsdk_sidecar.gateway.guest import Guest
from meshsdk_sidecar.gateway.routes import Routes
from meshsdk_sidecar.proxy.plane import Plane
from meshsdk_sidecar.proxy.work import Door, Patience

__all__ = ["Front"]


class Front:
    """Listens at the public ports.

    Args:
        config: the gateway's file.
        plane: carries; it is to be opened before this, and closed after.
        certificates: what is shown.

    Attributes:
        clients: who is connected, and may ask how much.
    """

    def __init__(self, config: GatewayConfig, plane: Plane, certificates: Certificates) -> None:
        self._config = config
        self._plane = plane
        self._certificates = certificates
        self._servers: list[asyncio.Server] = []
        self._entrance: Entrance | None = None
        self.clients = Clients(config.limits, config.trusted_proxies)

    async def open(self, listening: sockets.Sockets) -> None:
        """Serve at the sockets of `https` and `http`, of which each may have several addresses."""
        config, plane, clients = self._config, self._plane, self.clients
        routes, attire = Routes(config.routes), Attire(config.headers)
        self._entrance = entrance = Entrance(
            lambda: self._certificates.context,
            clients,
            self._guests(GatewayDoor(plane, routes, clients, attire), attire),
            watch=plane.pools.watch,
            clock=plane.clock,
            refused=partial(plane.refused, "gateway"),
        )
        await self._listen(_of("https", listening), entrance.protocol)
        if config.listeners.http is not None:
            folder = config.listeners.http.acme
            challenges = None if folder is None else Challenges(folder)
            door = RedirectDoor(plane, routes, clients, config.listeners.https.port, challenges)
            await self._listen(_of("http", listening), self._guests(door, None))

    def stop(self) -> None:
        """Accept no more; whoever came in stays."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._entrance is not None:
            self._entrance.abort()

    def _guests(self, door: Door, attire: Attire | None) -> partial[Guest]:
        limits = self._config.limits
        patience = Patience(limits.head_timeout, limits.idle_timeout, limits.stall_timeout)
        watch, clock = self._plane.pools.watch, self._plane.clock
        return partial(Guest, door, watch, clock, patience, _sizes(limits), attire)

    async def _listen(self, listening: Sequence[socket.socket], make: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        for sock in listening:
            self._servers.append(await loop.create_server(make, sock=sock, backlog=sockets.BACKLOG))


def _of(name: str, listening: sockets.Sockets) -> list[socket.socket]:
    return [each for place, opened in listening.items() if place.partition("[")[0] == name for each in opened]


def _sizes(limits: GatewayLimits) -> RequestLimits:
    usual, head = RequestLimits(), limits.head
    body = usual.body if limits.body is None else limits.body
    return RequestLimits(line=min(usual.line, head), head=head, field=min(usual.field, head), body=body)

"""Who comes in to the app: their connections as one, and the way in where they speak in clear text alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from meshsdk_sidecar.proxy.downstream import Downstream
from meshsdk_sidecar.proxy.inbound import InboundDoor

if TYPE_CHECKING:
    from meshsdk_sidecar.proxy.plane import Plane

__all__ = ["Callers", "InClear"]


class Callers:
    """The callers' connections, as the listener sees them (`meshsdk.server.listener.Serves`)."""

    def __init__(self, plane: Plane, make: Callable[[], Downstream]) -> None:
        self._plane = plane
        self.protocol = make

    @property
    def idle(self) -> bool:
        """Whether nothing is left to finish."""
        return not any(True for _ in self._plane.connections(InboundDoor))

    def drain(self) -> None:
        """Close each connection as soon as it has answered."""
        for downstream in self._plane.connections(InboundDoor):
            downstream.drain()

    def abort(self) -> None:
        """Break off whatever is left."""
        for downstream in self._plane.connections(InboundDoor):
            downstream.transport.abort()


class InClear:
    """As a `meshsdk.server.listener.Listener`, where there is nothing to shake hands with."""

    unfinished = 0
    """Nobody has to say first how it speaks."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        self._servers: list[asyncio.Server] = []

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        for sock in sockets:
            self._servers.append(await loop.create_server(self._callers.protocol, sock=sock, backlog=2048))

    async def stop(self) -> None:
        """Take no more connections; those that there are go on."""
        for server in self._servers:
            server.close()

    async def close(self, seconds: float) -> None:
        """Take no more connections, and give those that there are `seconds` to answer what they were asked."""
        await self.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._callers.idle:
                    self._callers.drain()  # again: one that was accepted before may stand only now
                    await asyncio.sleep(0.02)
        self._callers.abort()

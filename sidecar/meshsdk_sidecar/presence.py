"""The service's presence in Consul: registered while its port accepts connections, drained when the sidecar stops."""

from __future__ import annotations

import asyncio
import logging

from meshsdk.server.probe import listens
from meshsdk_registry import Consul, Heartbeat, Registration, RegistryError

__all__ = ["Presence"]

log = logging.getLogger("meshsdk.sidecar")

PROBE_EVERY = 1.0
"""Seconds between two looks at the service's port: a connection on loopback costs the service next to nothing."""


class Presence:
    """Keeps one instance registered as long as it can be reached.

    Args:
        registration: what Consul is told; its address and port are also what is probed.
        drain_wait: seconds between telling callers and deregistering.
    """

    def __init__(self, consul: Consul, registration: Registration, drain_wait: float) -> None:
        self._consul = consul
        self._registration = registration
        self._drain_wait = drain_wait
        self._heartbeat: Heartbeat | None = None

    @property
    def registered(self) -> bool:
        """Whether callers are sent to the service."""
        return self._heartbeat is not None and self._heartbeat.registered

    async def run(self) -> None:
        """Register when the port accepts, deregister when it no longer does; until cancelled."""
        where = f"{self._registration.address}:{self._registration.port}"
        while True:
            await self._until(accepting=True)
            self._heartbeat = Heartbeat(self._consul, self._registration)
            log.info("%s accepts connections at %s: registering", self._registration.service, where)
            beats = asyncio.create_task(self._heartbeat.run())
            try:
                await self._until(accepting=False)
            finally:
                beats.cancel()
            log.warning("%s no longer accepts connections at %s: deregistering", self._registration.service, where)
            await self._gone(self._heartbeat)
            self._heartbeat = None

    async def leave(self) -> None:
        """Tell callers to go elsewhere, give them the time to have seen it, and deregister."""
        heartbeat, self._heartbeat = self._heartbeat, None
        if heartbeat is None:
            return
        try:
            await heartbeat.drain()
        except RegistryError as error:
            log.warning("callers could not be told that %s stops: %s", self._registration.service, error)
        await asyncio.sleep(self._drain_wait)
        await self._gone(heartbeat)

    async def _until(self, *, accepting: bool) -> None:
        address = (self._registration.address,)
        while True:
            if await listens(address, self._registration.port) is accepting:
                return
            await asyncio.sleep(PROBE_EVERY)

    async def _gone(self, heartbeat: Heartbeat) -> None:
        try:
            await heartbeat.deregister()
        except RegistryError as error:
            log.warning("%s could not be deregistered: %s", self._registration.service, error)

"""The service's presence in Consul: registered while its port accepts connections, drained when the sidecar stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from meshsdk.server.announce import last_word, log_presence
from meshsdk.server.probe import listens
from meshsdk_registry import Consul, Heartbeat, Registration

__all__ = ["Presence"]

log = logging.getLogger("meshsdk.sidecar")

PROBE_EVERY = 1.0
"""Seconds between two looks at the service's port: a connection on loopback costs the service next to nothing."""


class Presence:
    """Keeps one instance registered as long as it can be reached.

    Args:
        registration: what Consul is told; its address and port are also what is probed.
        output: what the health check says, such as the policy versions in force.
        drain_wait: seconds between telling callers and deregistering.
    """

    def __init__(
        self, consul: Consul, registration: Registration, *, output: Callable[[], str], drain_wait: float
    ) -> None:
        self._consul = consul
        self._registration = registration
        self._output = output
        self._drain_wait = drain_wait
        self._heartbeat: Heartbeat | None = None
        self._leaving = False

    @property
    def why_absent(self) -> str:
        """Why callers are not sent to the service; empty while they are."""
        if self._leaving:
            return "draining: the sidecar stops"
        if self._heartbeat is None:
            return f"not registered: nothing accepts connections at {self._where}"
        return (
            "" if self._heartbeat.registered else f"not registered: Consul at {self._consul.url} has not confirmed it"
        )

    async def run(self) -> None:
        """Register when the port accepts, deregister when it no longer does; until cancelled."""
        while True:
            if not await self._accepts():
                log.info("waiting for %s to accept connections at %s", self._registration.service, self._where)
            await self._until(accepting=True)
            self._heartbeat = Heartbeat(self._consul, self._registration, output=self._output, notify=log_presence)
            beats = asyncio.create_task(self._heartbeat.run())
            try:
                await self._until(accepting=False)
            finally:
                beats.cancel()
                await asyncio.wait({beats})
            log.warning("%s no longer accepts connections at %s", self._registration.service, self._where)
            await last_word("deregistered", self._heartbeat, self._heartbeat.deregister())
            self._heartbeat = None

    async def leave(self) -> None:
        """Tell callers to go elsewhere, give them the time to have seen it, and deregister."""
        self._leaving = True
        if self._heartbeat is None:
            return
        await last_word("put into maintenance", self._heartbeat, self._heartbeat.drain())
        await asyncio.sleep(self._drain_wait)
        await last_word("deregistered", self._heartbeat, self._heartbeat.deregister())

    @property
    def _where(self) -> str:
        return f"{self._registration.address}:{self._registration.port}"

    async def _accepts(self) -> bool:
        return await listens((self._registration.address,), self._registration.port)

    async def _until(self, *, accepting: bool) -> None:
        while await self._accepts() is not accepting:  # noqa: ASYNC110 - a port tells nobody when it opens
            await asyncio.sleep(PROBE_EVERY)

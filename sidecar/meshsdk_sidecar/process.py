"""One sidecar: data plane, the service's presence in Consul, the app as a child; beside what `lifecycle` says.

Rule 1  An app's first call finds the sidecar whether that starts before the app or after it.
Rule 2  At the end callers are told and the instance leaves Consul; the way in closes and what came in is finished; the
        app, where it is our child, is told to end; and only when it has gone, or `drain.app` is over, does the way out
        close: an app that ends finishes its work first, and may call others for it.
Rule 3  A child that ends by itself ends the sidecar with its exit code; nobody waits for what nobody can answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from meshsdk_sidecar import kinds, sockets
from meshsdk_sidecar.child import Child
from meshsdk_sidecar.config import Config
from meshsdk_sidecar.handover import Predecessor
from meshsdk_sidecar.health import AppHealth, accepts
from meshsdk_sidecar.lifecycle import LOOK, Lifecycle
from meshsdk_sidecar.mesh import SidecarMesh
from meshsdk_sidecar.presence import Presence
from meshsdk_sidecar.proxy.plane import Plane

if TYPE_CHECKING:
    from meshsdk_sidecar.control import Workers

__all__ = ["Sidecar"]

log = logging.getLogger("meshsdk.sidecar")


class Sidecar(Lifecycle):
    """One sidecar.

    Args:
        config: its file.
        listening: its sockets, by the names of the file's sections.
        command: the app, to be run as a child.
        before: the process that is to be replaced.
    """

    kind = "sidecar"

    def __init__(
        self,
        config: Config,
        listening: sockets.Sockets,
        command: Sequence[str] | None = None,
        before: Predecessor | None = None,
    ) -> None:
        mesh = SidecarMesh(config)
        workers = _workers(config, mesh, listening)
        super().__init__(config, mesh, workers or _plane(config, mesh), listening, before=before, workers=workers)
        self._config = config
        self._command = command
        self._entered = asyncio.Event()
        self._presence: Presence | None = None
        self._health: AppHealth | None = None
        self._child: Child | None = None

    # --- beginning ------------------------------------------------------------------------------------------

    async def _to_open(self) -> None:
        await self._mesh.await_policy()
        await self._plane.open({name: each for name, each in self._listening.items() if name != "inbound"})

    async def _to_begin(self, begun: AsyncExitStack) -> None:
        if self._command is not None:
            self._child = Child(self._command)
            begun.callback(self._child.kill)
        if self._config.service.place is not None:
            await begun.enter_async_context(self._serving())

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        """Let callers in, and be in Consul; the app's health is looked at all the while."""
        place = self._config.service.place
        assert place is not None  # asked before
        self._health = AppHealth(place, self._config.service.health, turned=self._turned)
        async with self._mesh.consul() as consul:
            self._presence = Presence(
                consul,
                told=self._mesh.registration,
                trouble=lambda: self._health.trouble if self._health is not None else "",
                output=self._mesh.obeyed,
                why_not=lambda: self._mesh.unready,
            )
            tasks = [asyncio.create_task(work) for work in (self._health.run(), self._enter(self._presence))]
            for task in tasks:
                task.add_done_callback(self._tell_why)
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    async def _enter(self, presence: Presence) -> None:
        if self._before is None:
            await self._mesh.await_known()
            if self._mesh.draining:  # the end began before anybody could be let in, or another process does that now
                sockets.close({"inbound": self._listening["inbound"]})
                return
            await self._plane.open({"inbound": self._listening["inbound"]})
        else:
            await self._entered.wait()
        self._warn()
        await presence.run()

    def _turned(self) -> None:
        if self._presence is not None:
            self._presence.turned()

    def _to_say_why_unready(self) -> str:
        if self._presence is None:
            return "draining: the sidecar stops" if self._mesh.draining else ""
        return self._presence.why_absent

    # --- one process after another --------------------------------------------------------------------------

    async def _replace(self, before: Predecessor, begun: AsyncExitStack) -> None:
        await super()._replace(before, begun)
        self._entered.set()

    def _to_say_what_is_missing(self) -> str:
        if why := self._mesh.unready:
            return why
        return self._health.trouble if self._health is not None and not self._health.looked else ""

    def _unmoved(self) -> str:
        if self._child is not None:
            return "the app is its child (--exec) and would end with it: stop it, and start it anew"
        return super()._unmoved()

    async def _to_hand_over(self) -> None:
        if self._presence is not None:
            await self._presence.hand_over()

    # --- the end --------------------------------------------------------------------------------------------

    async def _to_leave(self) -> float:
        settings = self._mesh.settings
        alone = self._child is not None and self._child.gone.is_set()
        if self._presence is not None:
            await self._presence.leave(0.0 if alone else settings.drain_wait)
        return 0.0 if alone else settings.drain_timeout

    async def _until_end(self) -> None:
        waits = [asyncio.create_task(self._stop.wait())]
        if self._child is not None:
            waits.append(asyncio.create_task(self._child.gone.wait()))
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _to_end(self) -> int:
        grace = self._config.drain.app
        if self._child is not None:
            code = await self._child.end(grace)
            log.info("the app has ended with %d", code)
            return code
        await self._until_gone(grace)
        return 0

    async def _until_gone(self, seconds: float) -> None:
        """Keep the way out open until the app has gone; one without a port tells only by what it still asks for."""
        place = self._config.service.place
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        if place is not None:
            while clock() < end and await accepts(place):  # noqa: ASYNC110 - a port tells nobody when it closes
                await asyncio.sleep(LOOK)
        while clock() < end and self._plane.in_flight:  # noqa: ASYNC110 - requests tell nobody when the last ends
            await asyncio.sleep(LOOK / 10)

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()
        super()._kill()

    # --- what is said ---------------------------------------------------------------------------------------

    def _to_tell(self) -> None:
        for name, place in self._config.listening().items():
            if name != "inbound":
                log.info("%s at %s", name, place)
        if not kinds.is_loopback(self._config.outbound.address):
            log.warning(
                "whoever reaches %s calls others as %s", self._config.outbound.place, self._mesh.settings.service
            )

    def _warn(self) -> None:
        log.info("inbound at %s", self._config.inbound.place)
        address = self._mesh.address
        if address and kinds.is_loopback(address):
            name = self._mesh.settings.service
            words = "%s is registered at %s: only callers on this machine reach it; inbound.advertise names another"
            log.warning(words, name, address)


def _plane(config: Config, mesh: SidecarMesh) -> Plane:
    plane = Plane(config, mesh.parts())
    mesh.metrics.observe_gauges(plane.readings)
    return plane


def _workers(config: Config, mesh: SidecarMesh, listening: sockets.Sockets) -> Workers | None:
    if config.workers == 1:
        return None
    from meshsdk_sidecar.control import Workers  # 1 MB, which one process alone has no use for

    return Workers(config, mesh, listening)

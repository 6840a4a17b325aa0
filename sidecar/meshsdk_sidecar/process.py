"""One sidecar: mesh, data plane, the service's presence, the pages, the signals; and the order of the end.

Rule 1  Every socket is open before anything is begun, so a port that is taken ends the start, and the app's first
        call finds the sidecar whether it starts before the app or after it.
Rule 2  The first SIGTERM or SIGINT: callers are told, have `drain.wait` seconds to have seen it, and the instance
        leaves Consul; the way in closes and what came in is finished, within `drain.timeout`; the app, where it is our
        child, is told to end; and only when it has gone, or `drain.app` is over, does the way out close: an app that
        ends finishes its work first, and may call others for it.
Rule 3  A second signal ends it at once.
Rule 4  A child that ends by itself ends the sidecar with its exit code; nobody waits for what nobody can answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from meshsdk.wire.aio.watch import Watch
from meshsdk_sidecar import child as children
from meshsdk_sidecar import kinds, sockets
from meshsdk_sidecar.admin import Admin, Pages
from meshsdk_sidecar.child import Child
from meshsdk_sidecar.config import Config
from meshsdk_sidecar.health import AppHealth, accepts
from meshsdk_sidecar.mesh import SidecarMesh
from meshsdk_sidecar.presence import Presence
from meshsdk_sidecar.proxy.plane import Plane

__all__ = ["Sidecar"]

log = logging.getLogger("meshsdk.sidecar")

LOOK = 0.2
"""Seconds between two looks whether the app has gone."""


class Sidecar:
    """One sidecar.

    Args:
        config: its file.
        listening: its sockets, by the names of the file's sections.
        command: the app, to be run as a child.
    """

    def __init__(self, config: Config, listening: sockets.Sockets, command: Sequence[str] | None = None) -> None:
        self._config = config
        self._listening = listening
        self._command = command
        self._mesh = SidecarMesh(config)
        self._plane = Plane(config, self._mesh.parts())
        self._stop = asyncio.Event()
        self._drained: asyncio.Task[None] | None = None
        self._presence: Presence | None = None
        self._health: AppHealth | None = None
        self._child: Child | None = None
        self._signal = 0

    async def run(self) -> int:
        """Serve until the end; return the exit code."""
        self._handle_signals()
        async with AsyncExitStack() as begun:
            await begun.enter_async_context(self._mesh)
            await self._plane.open({name: each for name, each in self._listening.items() if name != "inbound"})
            begun.push_async_callback(self._plane.close)
            await self._open_pages(begun)
            if self._command is not None:
                self._child = Child(self._command)
                begun.callback(self._child.kill)
            if self._config.service.place is not None:
                await begun.enter_async_context(self._serving())
            self._tell()
            await self._until_end()
            return await self._end()

    # --- beginning ------------------------------------------------------------------------------------------

    async def _open_pages(self, begun: AsyncExitStack) -> None:
        found = Pages(self._mesh, unready=self._unready, drain=self.drain)
        watch = Watch(asyncio.get_running_loop(), time.monotonic)
        begun.callback(watch.close)
        for name, table, anyone in (("admin", found.all, False), ("probes", found.seen, True)):
            if name in self._listening:
                admin = Admin(found, table, anyone=anyone)
                await admin.open(self._listening[name], watch, time.monotonic)
                begun.callback(admin.close)

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
                task.add_done_callback(_tell_why)
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    async def _enter(self, presence: Presence) -> None:
        await self._mesh.await_known()
        await self._plane.open({"inbound": self._listening["inbound"]})
        self._warn()
        await presence.run()

    def _turned(self) -> None:
        if self._presence is not None:
            self._presence.turned()

    def _unready(self) -> str:
        if self._presence is None:
            return "draining: the sidecar stops" if self._mesh.draining else ""
        return self._presence.why_absent

    # --- the end --------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Send callers elsewhere and finish what came in; the way out stays open."""
        if self._drained is None:
            self._mesh.draining = True
            self._drained = asyncio.get_running_loop().create_task(self._drain())
            self._drained.add_done_callback(_tell_why)

    async def _drain(self) -> None:
        settings = self._mesh.settings
        alone = self._child is not None and self._child.gone.is_set()
        if self._presence is not None:
            await self._presence.leave(0.0 if alone else settings.drain_wait)
        await self._plane.drain_inbound(0.0 if alone else settings.drain_timeout)
        log.info("drained: nobody is let in any more")

    async def _until_end(self) -> None:
        waits = [asyncio.create_task(self._stop.wait())]
        if self._child is not None:
            waits.append(asyncio.create_task(self._child.gone.wait()))
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _end(self) -> int:
        log.info("stopping")
        self.drain()
        assert self._drained is not None  # it was just begun
        await asyncio.wait({self._drained})
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

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: int) -> None:
        if not self._signal:
            self._signal = number
            self._stop.set()
            return
        log.warning("a second signal: ending at once")
        if self._child is not None:
            self._child.kill()
        logging.shutdown()
        os._exit(children.exit_code(-number))  # whatever would be waited for, nobody wants to wait any more

    # --- what is said ---------------------------------------------------------------------------------------

    def _tell(self) -> None:
        for name, place in self._config.listeners().items():
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


def _tell_why(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("the service is no longer looked after: restart the sidecar", exc_info=error)

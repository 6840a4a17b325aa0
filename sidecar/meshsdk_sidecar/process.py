"""One sidecar: mesh, data plane, the service's presence, the pages, the signals; and the order of the end.

Rule 1  Every socket is open before anything is begun, so a port that is taken ends the start, and the app's first
        call finds the sidecar whether it starts before the app or after it.
Rule 2  The first SIGTERM or SIGINT: callers are told, have `drain.wait` seconds to have seen it, and the instance
        leaves Consul; the way in closes and what came in is finished, within `drain.timeout`; the app, where it is our
        child, is told to end; and only when it has gone, or `drain.app` is over, does the way out close: an app that
        ends finishes its work first, and may call others for it.
Rule 3  A second signal ends it at once.
Rule 4  A child that ends by itself ends the sidecar with its exit code; nobody waits for what nobody can answer.
Rule 5  A process that replaces another (`meshsdk_sidecar.handover`) serves once it knows all that it needs, and speaks
        to Consul and by its pages once that one is told. The one before leaves Consul alone, and ends when what it had
        begun is finished: clients that keep connections are told with their next answer, and have `PATIENT` seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from meshsdk.server.workers import Alone
from meshsdk.wire.aio.watch import Watch
from meshsdk_sidecar import kinds, sockets, supervisor
from meshsdk_sidecar.admin import Admin, Pages
from meshsdk_sidecar.child import Child
from meshsdk_sidecar.config import Config
from meshsdk_sidecar.handover import READY, Handover, NotReplaced, Predecessor, meeting_place
from meshsdk_sidecar.health import AppHealth, accepts
from meshsdk_sidecar.mesh import SidecarMesh
from meshsdk_sidecar.presence import Presence
from meshsdk_sidecar.proxy.plane import Plane
from meshsdk_sidecar.signals import end_on_signals

if TYPE_CHECKING:
    from meshsdk_sidecar.control import Workers

__all__ = ["Sidecar"]

log = logging.getLogger("meshsdk.sidecar")

LOOK = 0.2
"""Seconds between two looks whether the app has gone."""

PATIENT = 5.0
"""Seconds a replaced process leaves kept connections open that nobody asks anything on: a client that is busy asks
sooner, and is told; closing an idle one may cross a request that is on its way."""


class Sidecar:
    """One sidecar.

    Args:
        config: its file.
        listening: its sockets, by the names of the file's sections.
        command: the app, to be run as a child.
        before: the process that is to be replaced.

    Attributes:
        replaced: whether another process serves at our places now.
    """

    def __init__(
        self,
        config: Config,
        listening: sockets.Sockets,
        command: Sequence[str] | None = None,
        before: Predecessor | None = None,
    ) -> None:
        self.replaced = False
        self._before = before
        self._entered = asyncio.Event()
        self._handover: Handover | None = None
        self._pages: list[Admin] = []
        self._config = config
        self._listening = listening
        self._command = command
        self._mesh = SidecarMesh(config)
        self._workers = _workers(config, self._mesh, listening)
        self._plane = self._workers or Plane(config, self._mesh.parts())
        if isinstance(self._plane, Plane):
            self._mesh.metrics.observe_gauges(self._plane.readings)
        self._stop = asyncio.Event()
        self._drained: asyncio.Task[None] | None = None
        self._presence: Presence | None = None
        self._health: AppHealth | None = None
        self._child: Child | None = None

    async def run(self) -> int:
        """Serve until the end; return the exit code."""
        end_on_signals(self._stop.set, self._kill)
        async with AsyncExitStack() as begun:
            await begun.enter_async_context(self._mesh)
            if self._before is None:
                await self._mesh.await_policy()
                await self._plane.open({name: each for name, each in self._listening.items() if name != "inbound"})
                begun.push_async_callback(self._plane.close)
                await self._open_pages(begun)
            if self._command is not None:
                self._child = Child(self._command)
                begun.callback(self._child.kill)
            if self._config.service.place is not None:
                await begun.enter_async_context(self._serving())
            if self._before is not None:
                await self._replace(self._before, begun)
                await self._open_pages(begun)
            self._open_handover(begun)
            self._tell()
            supervisor.tell(supervisor.READY)
            await self._until_end()
            return await self._end()

    # --- beginning ------------------------------------------------------------------------------------------

    async def _open_pages(self, begun: AsyncExitStack) -> None:
        found = Pages(self._mesh, unready=self._unready, drain=self.drain, workers=self._workers)
        watch = Watch(asyncio.get_running_loop(), time.monotonic)
        begun.callback(watch.close)
        for name, table, anyone in (("admin", found.all, False), ("probes", found.seen, True)):
            if name in self._listening:
                admin = Admin(found, table, anyone=anyone, processes=self._serving_processes)
                await admin.open(self._listening[name], watch, time.monotonic)
                begun.callback(admin.close)
                self._pages.append(admin)

    def _serving_processes(self) -> tuple[int, ...]:
        return () if self._workers is None else self._workers.pids

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
        if self._before is None:
            await self._mesh.await_known()
            await self._plane.open({"inbound": self._listening["inbound"]})
        else:
            await self._entered.wait()
        self._warn()
        await presence.run()

    def _turned(self) -> None:
        if self._presence is not None:
            self._presence.turned()

    def _unready(self) -> str:
        if self._presence is None:
            return "draining: the sidecar stops" if self._mesh.draining else ""
        return self._presence.why_absent

    # --- one process after another --------------------------------------------------------------------------

    async def _replace(self, before: Predecessor, begun: AsyncExitStack) -> None:
        """Become ready, and take the place of the process before; raises `NotReplaced` where that goes on."""
        end = time.monotonic() + READY
        await self._mesh.await_known()
        while why := self._missing():
            if self._stop.is_set() or time.monotonic() > end:
                waited = "told to end before it was ready" if self._stop.is_set() else f"not ready within {READY:g} s"
                raise NotReplaced(f"{waited} ({why}): process {before.pid} goes on serving")
            await asyncio.sleep(LOOK / 10)
        await self._plane.open(self._listening)
        begun.push_async_callback(self._plane.close)
        await before.dismiss()
        log.info("ready in place of process %d", before.pid)
        self._entered.set()

    def _missing(self) -> str:
        """What is not known yet and must be, before anybody is served in place of a process that knows it."""
        if why := self._mesh.unready:
            return why
        return self._health.trouble if self._health is not None and not self._health.looked else ""

    def _open_handover(self, begun: AsyncExitStack) -> None:
        try:
            place = meeting_place(self._mesh.settings, self._config)
            self._handover = Handover(place, self._listening, refusal=self._unmoved, replaced=self._be_replaced)
        except (OSError, Alone) as error:
            log.warning("no new process can replace this one (meshsdk sidecar --replace): %s", error)
            return
        begun.callback(self._handover.close)
        task = asyncio.create_task(self._handover.run())
        task.add_done_callback(_tell_why)
        begun.callback(task.cancel)

    def _unmoved(self) -> str:
        """Why another process cannot take over."""
        if self._child is not None:
            return "the app is its child (--exec) and would end with it: stop it, and start it anew"
        if self._drained is not None or self._stop.is_set():
            return "it is draining: start the new one when it has ended"
        return ""

    async def _be_replaced(self, pid: int) -> None:
        self.replaced = True
        supervisor.tell(supervisor.MAINPID.format(pid), supervisor.READY)
        log.info("another process serves now; what is in flight is finished")
        for admin in self._pages:
            admin.close()
        if self._presence is not None:
            await self._presence.hand_over()
        self._mesh.draining = True
        await self._plane.retire()
        self._stop.set()

    async def _finish(self) -> None:
        """What is in flight when another process has taken over."""
        clock, seconds = asyncio.get_running_loop().time, self._mesh.settings.drain_timeout
        end, patient = clock() + seconds, clock() + min(PATIENT, seconds)
        while self._plane.connected and clock() < patient:  # noqa: ASYNC110 - connections tell nobody when the last is gone
            await asyncio.sleep(LOOK / 10)
        await self._plane.close(max(0.0, end - clock()))
        log.info("finished: the process that replaced this one serves alone")

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
        if self.replaced:
            await self._finish()
            return 0
        log.info("stopping")
        supervisor.tell(supervisor.STOPPING)
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

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()
        if self._workers is not None:
            self._workers.kill()

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


def _workers(config: Config, mesh: SidecarMesh, listening: sockets.Sockets) -> Workers | None:
    if config.workers == 1:
        return None
    from meshsdk_sidecar.control import Workers  # 1 MB, which one process alone has no use for

    return Workers(config, mesh, listening)


def _tell_why(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("the service is no longer looked after: restart the sidecar", exc_info=error)

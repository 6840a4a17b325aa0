"""One gateway: its place in the mesh, the public ports, the pages, the signals; and the order of the end.

Rule 1  Every socket is open and every certificate read before anything is begun.
Rule 2  The public ports are served from the start; a request whose service is not known yet waits for it, bounded, as
        any first call. `/ready` says yes once every routed service was asked for.
Rule 3  The first SIGTERM or SIGINT: `/ready` says no, for `drain.wait` seconds, so that a balancer before us looks
        away; then the ports close and what is in flight is finished, within `drain.timeout`. A second one ends it.
Rule 4  It calls with the identity of its own name, and is no service that others call: it is not registered.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from contextlib import AsyncExitStack
from typing import Any

from meshsdk.errors import MeshError
from meshsdk.wire.aio.watch import Watch
from meshsdk_sidecar import pages as shown
from meshsdk_sidecar import sockets, supervisor
from meshsdk_sidecar.admin import Admin, Answered, Pages
from meshsdk_sidecar.gateway.certificates import Certificates
from meshsdk_sidecar.gateway.config import GatewayConfig
from meshsdk_sidecar.gateway.front import Front
from meshsdk_sidecar.mesh import SidecarMesh
from meshsdk_sidecar.proxy.plane import Plane
from meshsdk_sidecar.signals import end_on_signals

__all__ = ["Gateway"]

log = logging.getLogger("meshsdk.gateway")


class Gateway:
    """One gateway.

    Args:
        config: its file.
        listening: its sockets, by the names of the file's sections.

    Raises:
        ConfigError: the settings do not fit.
        BadCertificate: a certificate was changed since the file was checked, and cannot be used.
    """

    def __init__(self, config: GatewayConfig, listening: sockets.Sockets) -> None:
        self._config = config
        self._listening = listening
        self._certificates = Certificates(config.certificates)
        self._mesh = SidecarMesh(config.sidecar())
        self._plane = Plane(config.sidecar(), self._mesh.parts())
        self._mesh.metrics.observe_gauges(self._plane.readings)
        self._front = Front(config, self._plane, self._certificates)
        self._stop = asyncio.Event()
        self._sought = False

    async def run(self) -> int:
        """Serve until the end; return the exit code."""
        end_on_signals(self._stop.set)
        async with AsyncExitStack() as begun:
            await begun.enter_async_context(self._mesh)
            begun.push_async_callback(self._plane.close)
            await self._plane.open({})
            await self._front.open(self._listening)
            begun.callback(self._front.stop)
            await self._open_pages(begun)
            tasks = [asyncio.create_task(work) for work in (self._certificates.follow(), self._seek())]
            for task in tasks:
                task.add_done_callback(_tell_why)
                begun.callback(task.cancel)
            self._tell()
            supervisor.tell(supervisor.READY)
            await self._stop.wait()
            await self._end()
        return 0

    async def _seek(self) -> None:
        """Ask for every service that is routed to, so that the first request of each finds it known."""
        for service in dict.fromkeys(route.to for route in self._config.routes):
            try:
                await self._plane.look_up(service)
            except MeshError as error:
                log.warning("%s", error)
        self._sought = True

    async def _end(self) -> None:
        settings = self._mesh.settings
        log.info("stopping")
        supervisor.tell(supervisor.STOPPING)
        self._mesh.draining = True
        await asyncio.sleep(settings.drain_wait)
        self._front.stop()
        await self._plane.close(settings.drain_timeout)

    # --- pages ----------------------------------------------------------------------------------------------

    async def _open_pages(self, begun: AsyncExitStack) -> None:
        found = Pages(self._mesh, unready=self._unready, drain=self._stop.set)
        found.all["/config"] = {"GET": self._show_config}
        found.all["/certs"] = {"GET": self._show_certificates}
        del found.all["/drain"]  # the gateway ends by its signal, and drains then
        watch = Watch(asyncio.get_running_loop(), time.monotonic)
        begun.callback(watch.close)
        for name, table, anyone in (("admin", found.all, False), ("probes", found.seen, True)):
            if name in self._listening:
                admin = Admin(found, table, anyone=anyone)
                await admin.open(self._listening[name], watch, time.monotonic)
                begun.callback(admin.close)

    def _unready(self) -> str:
        if self._mesh.draining:
            return "draining: the gateway stops"
        return self._mesh.unready or ("" if self._sought else "services are being looked up")

    def _show_config(self, *_: Any) -> Answered:
        said = shown.config(self._mesh)
        return Answered(200, {**said, "file": dataclasses.asdict(self._config)})

    def _show_certificates(self, *_: Any) -> Answered:
        public = [
            {
                "hosts": each.hosts,
                "serial": each.serial,
                "not_before": each.not_before.isoformat(),
                "not_after": each.not_after.isoformat(),
            }
            for each in self._certificates.shown
        ]
        return Answered(200, {**shown.certs(self._mesh), "public": public})

    def _tell(self) -> None:
        for name, place in self._config.listening().items():
            log.info("%s at %s", name, place)


def _tell_why(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("certificates or services are no longer looked after: restart the gateway", exc_info=error)

"""One gateway: its certificates, and the services it leads to; beside what `lifecycle` says.

Rule 1  Every certificate is read before anything is begun, and followed by this process alone.
Rule 2  The public ports are served from the start; a request whose service is not known yet waits for it, bounded, as
        any first call. `/ready` says yes once every routed service was asked for; no other process is replaced before.
Rule 3  At the end `/ready` says no, for `drain.wait` seconds, so that a balancer before us looks away.
Rule 4  It calls with the identity of its own name, and is no service that others call: it is not registered.
"""

from __future__ import annotations

import dataclasses
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from meshsdk.errors import MeshError
from meshsdk_sidecar import pages as shown
from meshsdk_sidecar import sockets
from meshsdk_sidecar.admin import Answered, Pages
from meshsdk_sidecar.gateway.certificate_files import CertificateFiles
from meshsdk_sidecar.gateway.config import GatewayConfig
from meshsdk_sidecar.gateway.front import Front
from meshsdk_sidecar.lifecycle import Lifecycle
from meshsdk_sidecar.mesh import SidecarMesh

if TYPE_CHECKING:
    from meshsdk_sidecar.control import Workers
    from meshsdk_sidecar.handover import Predecessor

__all__ = ["Gateway"]

log = logging.getLogger("meshsdk.gateway")


class Gateway(Lifecycle):
    """One gateway.

    Args:
        config: its file.
        listening: its sockets, by the names of the file's sections.
        before: the process that is to be replaced.

    Raises:
        ConfigError: the settings do not fit.
        BadCertificate: a certificate was changed since the file was checked, and cannot be used.
    """

    kind = "gateway"

    def __init__(self, config: GatewayConfig, listening: sockets.Sockets, before: Predecessor | None = None) -> None:
        mesh = SidecarMesh(config.sidecar())
        files = CertificateFiles(config.certificates)
        workers = _workers(config, mesh, listening, files)
        plane = workers or _front(config, mesh, files)
        super().__init__(config, mesh, plane, listening, before=before, workers=workers)
        self._config = config
        self._files = files
        self._sought = False

    async def _to_begin(self, begun: AsyncExitStack) -> None:
        self._beside(begun, self._files.follow())
        self._beside(begun, self._seek())

    async def _seek(self) -> None:
        """Ask for every service that is routed to, so that the first request of each finds it known."""
        parts = self._mesh.parts()
        for service in dict.fromkeys(route.to for route in self._config.routes):
            try:
                await parts.ready()
                await parts.services.acluster(service)
            except MeshError as error:
                log.warning("%s", error)
        self._sought = True

    def _to_say_why_unready(self) -> str:
        return "draining: the gateway stops" if self._mesh.draining else self._to_say_what_is_missing()

    def _to_say_what_is_missing(self) -> str:
        return super()._to_say_what_is_missing() or ("" if self._sought else "services are being looked up")

    # --- pages ----------------------------------------------------------------------------------------------

    def _to_show(self, pages: Pages) -> None:
        pages.all["/config"] = {"GET": self._show_config}
        pages.all["/certs"] = {"GET": self._show_certificates}
        del pages.all["/drain"]  # the gateway ends by its signal, and drains then

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
            for each in self._files.pairs
        ]
        return Answered(200, {**shown.certs(self._mesh), "public": public})


def _front(config: GatewayConfig, mesh: SidecarMesh, files: CertificateFiles) -> Front:
    front = Front(config, mesh.parts(), lambda: files.pairs)
    mesh.metrics.observe_gauges(front.readings)
    return front


def _workers(
    config: GatewayConfig, mesh: SidecarMesh, listening: sockets.Sockets, files: CertificateFiles
) -> Workers | None:
    if config.workers == 1:
        return None
    from meshsdk_sidecar.control import Workers  # as in `meshsdk_sidecar.process`
    from meshsdk_sidecar.gateway.ledger import memory
    from meshsdk_sidecar.gateway.shared import front_of

    return Workers(config, mesh, listening, make=front_of, beside=lambda: files.pairs, memory=memory(config.workers))

"""The sidecar's process: listeners, the service's presence, and the end of it all, put together.

What is begun last ends first: when the sidecar stops, the service leaves Consul while its own calls still work and the
pages still answer; then the listeners finish what is in flight, and last the connections to other services close.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from meshsdk.mesh import Mesh, open_consul
from meshsdk.server.address import instance_id
from meshsdk.server.announce import obeyed
from meshsdk_registry import Registration
from meshsdk_sidecar.admin import Admin
from meshsdk_sidecar.config import Config, Service
from meshsdk_sidecar.file import load
from meshsdk_sidecar.listener import listening, url
from meshsdk_sidecar.outbound import Outbound
from meshsdk_sidecar.presence import Presence

__all__ = ["run"]

log = logging.getLogger("meshsdk.sidecar")


def run(file: Path) -> None:
    """Run a sidecar until SIGTERM or SIGINT.

    Raises:
        ConfigError: the file has mistakes, or a port is taken.
    """
    config = load(file)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    asyncio.run(_serve(config))


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as begun:
        mesh = await begun.enter_async_context(_mesh(config))
        transport = await begun.enter_async_context(mesh.async_transport())
        presence = await begun.enter_async_context(_presence(mesh, config.service))
        admin = Admin(mesh.metrics, lambda: presence.why_absent if presence else "")
        outbound = Outbound(transport)
        for app, name, where in ((outbound, "outbound", config.outbound.place), (admin, "admin", config.admin.place)):
            await begun.enter_async_context(listening(app, name, where.address, where.port))
            log.info("%s at %s", name, url(where.address, where.port))
        if presence is not None:
            await begun.enter_async_context(_present(presence))
        await stop.wait()
        log.info("stopping")


def _mesh(config: Config) -> Mesh:
    return Mesh(
        config.service.name,
        consul_url=config.consul.url,
        consul_token_file=config.consul.token_file,
        datacenter=config.consul.datacenter,
    )


@asynccontextmanager
async def _presence(mesh: Mesh, service: Service) -> AsyncIterator[Presence | None]:
    """What keeps the service registered, with a client of Consul of its own; None for a service that only calls."""
    if service.port is None:
        yield None
        return
    if _is_loopback(service.address):
        log.warning(
            "%s is registered at %s: only callers on this machine reach it; service.address names another",
            service.name,
            service.address,
        )
    facts = {"mesh": "1", "protocol": service.protocol, "sidecar": "1"}
    facts |= {
        name: value for name, value in {"zone": mesh.settings.zone, "version": mesh.settings.version}.items() if value
    }
    identity = instance_id(service.name, service.port)
    registration = Registration(
        service.name,
        identity,
        service.address,
        service.port,
        {**facts, **mesh.settings.meta},
        mesh.settings.tags,
        ttl=mesh.settings.ttl,
    )
    async with open_consul(mesh.settings) as consul:
        yield Presence(
            consul,
            registration,
            output=lambda: obeyed(mesh.directory.policy_versions()),
            drain_wait=mesh.settings.drain_wait,
        )


@asynccontextmanager
async def _present(presence: Presence) -> AsyncIterator[None]:
    task = asyncio.create_task(presence.run())
    task.add_done_callback(_tell_why)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        await presence.leave()


def _tell_why(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("the service is no longer looked after: restart the sidecar", exc_info=error)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"

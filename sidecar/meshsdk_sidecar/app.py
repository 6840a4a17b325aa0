"""The sidecar's process: listeners, the service's presence, and the end of it all, put together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

from meshsdk.errors import ConfigError
from meshsdk.mesh import Mesh, open_consul
from meshsdk.server.address import instance_id
from meshsdk_registry import Registration
from meshsdk_sidecar.admin import Admin
from meshsdk_sidecar.config import Config, load
from meshsdk_sidecar.outbound import Outbound
from meshsdk_sidecar.presence import Presence

__all__ = ["run"]

log = logging.getLogger("meshsdk.sidecar")

# A proxy adds nothing of its own to answers, and believes no forwarding header of its caller.
SERVING: dict[str, Any] = {
    "lifespan": "off",
    "log_level": "warning",
    "access_log": False,
    "proxy_headers": False,
    "server_header": False,
    "date_header": False,
    "timeout_graceful_shutdown": 10,
}


def run(file: Path) -> None:
    """Run a sidecar until SIGTERM or SIGINT.

    Raises:
        ConfigError: the file has mistakes, or a port is taken.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(_serve(load(file)))


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        mesh = await stack.enter_async_context(_mesh(config))
        transport = await stack.enter_async_context(mesh.async_transport())
        await stack.enter_async_context(_listening(Outbound(transport), config.outbound.address, config.outbound.port))
        presence = await stack.enter_async_context(_present(mesh, config))
        admin = Admin(mesh.metrics, lambda: _why_not_ready(presence))
        await stack.enter_async_context(_listening(admin, config.admin.address, config.admin.port))
        log.info(
            "%s: calls enter at http://%s:%d, pages at http://%s:%d",
            config.service.name,
            config.outbound.address,
            config.outbound.port,
            config.admin.address,
            config.admin.port,
        )
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
async def _present(mesh: Mesh, config: Config) -> AsyncIterator[Presence | None]:
    """Keep the service registered; on leaving drain it, while its own calls still work."""
    service = config.service
    if service.port is None:
        yield None
        return
    registration = Registration(
        service.name,
        instance_id(service.name, service.port),
        service.address,
        service.port,
        {"mesh": "1", "protocol": service.protocol, "sidecar": "1"},
        ttl=mesh.settings.ttl,
    )
    async with open_consul(mesh.settings) as consul:
        presence = Presence(consul, registration, mesh.settings.drain_wait)
        task = asyncio.create_task(presence.run())
        try:
            yield presence
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await presence.leave()


def _why_not_ready(presence: Presence | None) -> str:
    return "" if presence is None or presence.registered else "the service is not registered: its port does not accept"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the sidecar owns the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _listening(app: Any, address: str, port: int) -> AsyncIterator[None]:
    """Serve an ASGI application while the context lasts, then finish what is in flight."""
    try:
        listener = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        raise ConfigError(f"cannot listen on {address}:{port}: {error.strerror or error}") from error
    settings = uvicorn.Config(app, **SERVING)
    server = _Server(settings)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task
        listener.close()

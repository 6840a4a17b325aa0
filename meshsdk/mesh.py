"""`Mesh`: where the parts of one process are put together. It wires everything and decides nothing."""

from __future__ import annotations

import importlib
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from meshsdk.config import Settings, load
from meshsdk.discovery import Directory, ServiceStatus
from meshsdk.discovery.background import Background
from meshsdk.discovery.intentions import OwnIntentions
from meshsdk.identity.contexts import consul_context
from meshsdk.identity.holder import Identity
from meshsdk.identity.providers.consul import ConsulProvider
from meshsdk.identity.providers.files import FileProvider
from meshsdk.identity.providers.provider import Examine, examine_here
from meshsdk.identity.securing import Securing
from meshsdk.server.allow import narrowed
from meshsdk.server.beginning import Source
from meshsdk.server.who import Who
from meshsdk.telemetry import otel, threads
from meshsdk.telemetry.access_log import AccessLog
from meshsdk.telemetry.context import current, remaining_deadline
from meshsdk.telemetry.gauges import readings_of
from meshsdk.telemetry.instruments import Reading
from meshsdk.telemetry.metrics import Metrics
from meshsdk.telemetry.sinks import Fanout
from meshsdk.telemetry.tracing import Tracing
from meshsdk.tokens.keeper import Tokens
from meshsdk_registry import Consul
from meshsdk_registry.transport import prepare

if TYPE_CHECKING:
    import httpx

    from meshsdk import client as clients
    from meshsdk.client.library import AsyncClientLibrary, AsyncTransportLibrary, ClientLibrary, TransportLibrary
    from meshsdk.core.strategy import Stop, Wait
    from meshsdk.server.asgi import ASGIApp, MeshASGI
    from meshsdk.server.server import Server
    from meshsdk.server.wsgi import MeshWSGI, WSGIApp

__all__ = ["Mesh", "open_consul"]

# `meshsdk.client.DEFAULT`, which is imported with the first client: a sidecar has none, and httpx is 8 MB.
_ENGINE: Literal["meshsdk"] = "meshsdk"

C = TypeVar("C")  # a client
F = TypeVar("F", bound=Callable[..., Any])  # a handler
T = TypeVar("T")  # a transport

_background = Background()
"""The one thread for all work beside requests, shared by every `Mesh` of the process."""


class Mesh:
    """One process's place in the mesh.

        mesh = Mesh("checkout", port=8001)
        mesh.instrument(app)                     # FastAPI, Starlette or Flask
        http = mesh.async_client()               # an httpx.AsyncClient
        await http.get("http://payments/charge")

    Args:
        service: our own name, a DNS label; `MESH_SERVICE` where not given.
        port: the port callers reach us on; a process without one only calls others and is not registered.
        wait, stop: tenacity strategies of your own, such as `tenacity.wait_fixed(0.1)`, asked after a failed try in
            place of the policy's backoff; what may be retried, the budget and the deadline stay the policy's.
        settings: any other field of `meshsdk.config.Settings`, such as `consul_url=` or `zone=`; what is not given
            comes from MESH_* and CONSUL_* variables.

    Raises:
        ConfigError: a setting is wrong; all of them are named.
    """

    _examine: Examine = staticmethod(examine_here)

    def __init__(
        self,
        service: str | None = None,
        *,
        port: int | None = None,
        wait: Wait | None = None,
        stop: Stop | None = None,
        **settings: Any,
    ) -> None:
        self.settings = load({"service": service, "port": port, **settings})
        prepare()
        self.metrics = Metrics()
        self._tracing = Tracing()
        self._sink: Fanout[Any] = Fanout(self.metrics.sink, AccessLog(self.settings.service))
        self.directory = Directory(
            lambda: open_consul(self.settings),
            self.settings.service,
            background=_background,
            sink=self._sink,
            first_wait=self.settings.first_wait,
            grace=self.settings.removal_grace,
            idle=self.settings.idle_watch,
            wait=wait,
            stop=stop,
            state_dir=self.settings.state_dir,
        )
        self.metrics.observe_gauges(self._readings)
        otel.export(self.metrics, self.settings.service)
        threads.follow()
        self.identity = _identity(self.settings, self._examine)
        self._securing = Securing(self.identity, self.directory.peek, self.settings.first_wait)
        self._intentions = _intentions(self.settings)
        self._tokens = Tokens(_background)
        self._server: Server | None = None

    def __repr__(self) -> str:
        phase = f", {self._server.phase}" if self._server else ""
        return f"<Mesh {self.settings.service}{phase}>"

    # --- calling others ---------------------------------------------------------------------------------------------

    @overload
    def client(self, *, library: ClientLibrary[C], engine: clients.EngineName = _ENGINE, **options: Any) -> C: ...
    @overload
    def client(self, *, library: None = None, engine: clients.EngineName = _ENGINE, **options: Any) -> httpx.Client: ...
    def client(self, *, library: Any = None, engine: clients.EngineName = _ENGINE, **options: Any) -> Any:
        """An `httpx.Client` whose calls to mesh services follow the policy.

        Args:
            library: the module httpx or httpx2, whose client it is to be; httpx if not given.
            engine: what carries the calls; see `transport`.
            options: the client's own, such as `base_url`, `headers` or `event_hooks`.

        Raises:
            ConfigError: an option that would have no effect or take calls away from the mesh, or another module.
        """
        made = _clients().library(library).MeshTransport
        transport = made(self.directory, tracing=self._tracing, security=self._securing, engine=engine)
        return _clients().client(transport, **options)

    @overload
    def async_client(
        self, *, library: AsyncClientLibrary[C], engine: clients.EngineName = _ENGINE, **options: Any
    ) -> C: ...
    @overload
    def async_client(
        self, *, library: None = None, engine: clients.EngineName = _ENGINE, **options: Any
    ) -> httpx.AsyncClient: ...
    def async_client(self, *, library: Any = None, engine: clients.EngineName = _ENGINE, **options: Any) -> Any:
        """An `httpx.AsyncClient` whose calls to mesh services follow the policy; as `client`."""
        made = _clients().library(library).AsyncMeshTransport
        transport = made(self.directory, tracing=self._tracing, security=self._securing, engine=engine)
        return _clients().async_client(transport, **options)

    @overload
    def transport(
        self, *, library: TransportLibrary[T], engine: clients.EngineName = _ENGINE, egress: T | None = None
    ) -> T: ...
    @overload
    def transport(
        self,
        *,
        library: None = None,
        engine: clients.EngineName = _ENGINE,
        egress: httpx.BaseTransport | None = None,
    ) -> clients.MeshTransport: ...
    def transport(self, *, library: Any = None, engine: clients.EngineName = _ENGINE, egress: Any = None) -> Any:
        """A transport for an `httpx.Client` of your own.

        Args:
            library: the module httpx or httpx2, whose client it is for; httpx if not given.
            engine: what carries the calls; "httpcore" is httpx's own engine, which trio needs. For HTTP/2 or a
                proxy, in clear text, a transport of the library: `httpx.HTTPTransport(http1=False, http2=True)`.
            egress: takes the calls to hosts outside the mesh; a transport of the same library, where HTTP/2 or a proxy
                is wanted, such as `httpx.HTTPTransport(proxy=...)`.

        Raises:
            ConfigError: one of them is not what is asked for here.
        """
        made = _clients().library(library).MeshTransport
        return made(self.directory, tracing=self._tracing, security=self._securing, engine=engine, egress=egress)

    @overload
    def async_transport(
        self,
        *,
        library: AsyncTransportLibrary[T],
        engine: clients.EngineName = _ENGINE,
        egress: T | None = None,
    ) -> T: ...
    @overload
    def async_transport(
        self,
        *,
        library: None = None,
        engine: clients.EngineName = _ENGINE,
        egress: httpx.AsyncBaseTransport | None = None,
    ) -> clients.AsyncMeshTransport: ...
    def async_transport(self, *, library: Any = None, engine: clients.EngineName = _ENGINE, egress: Any = None) -> Any:
        """A transport for an `httpx.AsyncClient` of your own; as `transport`."""
        made = _clients().library(library).AsyncMeshTransport
        return made(self.directory, tracing=self._tracing, security=self._securing, engine=engine, egress=egress)

    # --- being called -----------------------------------------------------------------------------------------------

    def instrument(self, app: Any) -> None:
        """Put the mesh around a FastAPI, Starlette or Flask application, in place.

        Raises:
            TypeError: it is none of them; `asgi` and `wsgi` take any other.
        """
        self._served().instrument(app)

    def asgi(self, app: ASGIApp) -> MeshASGI:
        """Put the mesh around any ASGI application; serve what is returned."""
        return self._served().asgi(app)

    def wsgi(self, app: WSGIApp) -> MeshWSGI:
        """Put the mesh around any WSGI application; serve what is returned."""
        return self._served().wsgi(app)

    def ssl_context(self) -> ssl.SSLContext | None:
        """For a WSGI development server, such as `app.run(ssl_context=mesh.ssl_context())`: its port takes the mesh's
        callers then, and clear text too unless the policy is strict. None where the settings turn identity off.

        gunicorn has its own way: `from meshsdk.server.gunicorn import *` in its configuration.
        """
        return None if self.identity is None else self._served().entrance.context()

    def allow(self, from_: str | Iterable[str]) -> Callable[[F], F]:
        """Let only some callers reach a handler, whatever else the policy allows; the others are answered with 403.

            @app.post("/refund")
            @mesh.allow(from_=["checkout"])
            def refund(): ...

        Args:
            from_: services, SPIFFE ids (with `/*` at the end for all below), `*` for every verified caller.

        Raises:
            ValueError: one of them names nobody.
        """
        return lambda handler: narrowed(handler, from_, self._trust_domain)

    def peer(self) -> str | None:
        """Who is calling: the SPIFFE id that was verified for the request being served; None without one."""
        inbound = current.get()
        return inbound.peer if inbound else None

    def claims(self) -> Mapping[str, Any] | None:
        """What the end user's token says (JWT), once verified for the request being served; None without one, or where
        the policy (`authentication.jwt`) asks for none."""
        inbound = current.get()
        return inbound.claims if inbound else None

    def deadline(self) -> float | None:
        """Seconds left for the request being served, 0 if none; None where its caller set no deadline."""
        until = remaining_deadline()
        return None if until is None else max(0.0, until - time.monotonic())

    # --- looking inside, and the end --------------------------------------------------------------------------------

    def status(self) -> tuple[ServiceStatus, ...]:
        """What is known of every service that is called, and how old it is."""
        return self.directory.status()

    def close(self) -> None:
        """Leave the mesh: deregister, stop watching. Clients are closed by whoever made them."""
        if self._server is not None:
            self._server.close()
        self._stop_following()
        if self.identity is not None:
            self.identity.close()
        self.directory.close()

    async def aclose(self) -> None:
        """The same from asyncio."""
        if self._server is not None:
            await self._server.aclose()
        self._stop_following()
        if self.identity is not None:
            await self.identity.aclose()
        await self.directory.aclose()

    def _stop_following(self) -> None:
        self._tokens.close()
        if self._intentions is not None:
            self._intentions.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _served(self) -> Server:
        if self._server is None:
            from meshsdk.server.server import Server  # 2 MB, which a sidecar has no use for

            self._server = Server(
                self.settings,
                background=_background,
                consul=lambda: open_consul(self.settings),
                policy_versions=self.directory.policy_versions,
                metrics=self.metrics,
                sink=self._sink,
                tracing=self._tracing,
                plan=self.directory.own_plan,
                identity=self.identity,
                who=self._who(),
            )
        return self._server

    def _who(self) -> Who:
        intentions = self._intentions
        policy = Source("the policy", self.directory.own_gate, self.directory.own_known)
        if intentions is None:
            return Who(sources=[policy], trust_domain=self._trust_domain, own_id=self._own_id, tokens=self._tokens)
        sources = [policy, Source("the intentions", intentions.gate, intentions.known)]
        return Who(intentions.current, sources, self._trust_domain, self._own_id, self._tokens)

    def _trust_domain(self) -> str:
        """Our own; the last known one once our certificate has expired: kept connections go on."""
        return "" if self.identity is None else self.identity.trust_domain

    def _own_id(self) -> str:
        material = self.identity.material if self.identity is not None else None
        return "" if material is None else str(material.spiffe_id)

    def _readings(self) -> Iterator[Reading]:
        if self._server is not None:
            yield Reading("mesh.server.unreadable_timeouts", (), self._server.intake.unreadable_timeouts)
        if self.identity is not None:
            for reading in self.identity.readings():
                yield Reading(*reading)
        for status in self.directory.status():
            labels = (status.service,)
            yield Reading("mesh.registry.staleness", labels, status.age)
            yield Reading("mesh.registry.disconnected", labels, float(not status.connected))
            yield Reading("mesh.policy.rejected", labels, float(bool(status.policy_problem)))
            cluster = self.directory.peek(status.service)
            if cluster is not None:
                yield from readings_of(cluster)


def _clients() -> Any:
    return importlib.import_module("meshsdk.client")


def _identity(settings: Settings, examine: Examine) -> Identity | None:
    """Nothing is asked for before the first use."""
    if settings.identity == "off":
        return None
    if settings.identity == "files":
        paths = (Path(name or "") for name in (settings.tls_cert, settings.tls_key, settings.tls_ca))
        return Identity(FileProvider(*paths, examine=examine), _background)
    return Identity(ConsulProvider(lambda: open_consul(settings), settings.service, examine=examine), _background)


def _intentions(settings: Settings) -> OwnIntentions | None:
    """They are about identities that Consul gave."""
    if settings.identity not in {"auto", "consul"}:
        return None
    return OwnIntentions(
        lambda: open_consul(settings),
        settings.service,
        background=_background,
        default_allow={"allow": True, "deny": False}.get(settings.intention_default),
        state_dir=settings.state_dir,
        first_wait=settings.first_wait,
    )


def open_consul(settings: Settings) -> Consul:
    """Make a client of Consul as the settings say; to be used in one event loop.

    Raises:
        ConfigError: a TLS file cannot be used.
    """
    tls: ssl.SSLContext | None = None
    if settings.consul_url.startswith("https://"):
        names = (settings.consul_cacert, settings.consul_cert, settings.consul_key)
        cacert, cert, key = (Path(name) if name else None for name in names)
        tls = consul_context(datetime.now(UTC), cacert=cacert, cert=cert, key=key)
    secret, file, place = settings.consul_token, settings.consul_token_file, settings.datacenter
    return Consul(settings.consul_url, token=secret, token_file=file, datacenter=place, tls=tls)

"""The gateway's file: what it may say, section by section, each default with its reason."""

# ruff: noqa: RUF009 - `section`, `setting` and `each` return dataclasses.field

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from meshsdk_sidecar import config as sidecar
from meshsdk_sidecar import kinds
from meshsdk_sidecar.config import Admin, ConsulSection, IdentitySection, LimitsSection, Probes
from meshsdk_sidecar.gateway import kinds as outside
from meshsdk_sidecar.place import Place
from meshsdk_sidecar.sections import Section, each, section, setting

__all__ = [
    "CertificateSection",
    "Drain",
    "GatewayConfig",
    "GatewayLimits",
    "GatewayService",
    "HeadersSection",
    "Http",
    "Https",
    "Listeners",
    "PathSection",
    "RouteSection",
]

Off = Literal[False]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayService(Section):
    """Who the gateway is in the mesh: the name in its certificate, by which services let it in or not.

    Attributes:
        zone: where it runs; instances there are preferred as policies say.
    """

    name: str = setting(kinds.service, example="`service: {name: edge}`, the name by which services know the gateway")
    zone: str | None = setting(kinds.text, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Https(Section):
    """Where clients come in."""

    address: tuple[str, ...] = setting(outside.addresses, ("0.0.0.0",))
    port: int = setting(kinds.port, 443)

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it listens."""
        return tuple(Place(each, self.port) for each in self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Http(Section):
    """Where clients are sent to https; nothing is carried from here.

    Attributes:
        acme: a folder whose files are shown below `/.well-known/acme-challenge/` (RFC 8555, 8.3).
    """

    address: tuple[str, ...] = setting(outside.addresses, ("0.0.0.0",))
    port: int = setting(kinds.port, 80)
    acme: str | None = setting(kinds.file, None)

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it listens."""
        return tuple(Place(each, self.port) for each in self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners(Section):
    """The public ports; the one for http is opened only where it is written."""

    https: Https = section(Https)
    http: Http | None = section(Http, absent=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSection(Section):
    """A certificate of ours, in PEM files that are watched; the first is shown to clients that name no host.

    Attributes:
        cert: the certificate and those between it and a root, in this order.
        hosts: for which it is shown; those that it is for where they are left out.
    """

    cert: str = setting(kinds.file, example="`cert: /etc/tls/shop.pem`, a PEM file")
    key: str = setting(kinds.file, example="`key: /etc/tls/shop.key`, a PEM file")
    hosts: tuple[str, ...] | None = setting(outside.hosts, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSection(Section):
    """Which paths: one, or one with all below it. `/api` is a prefix of `/api` and `/api/x`, not of `/apis`."""

    prefix: str | None = setting(outside.path, None)
    exact: str | None = setting(outside.path, None)

    @property
    def stem(self) -> str:
        """The path, or the prefix; `/` where neither is written, which is all."""
        return self.exact or self.prefix or "/"

    def misfits(self) -> Iterator[tuple[str, str]]:
        """One of them."""
        if self.prefix is not None and self.exact is not None:
            yield "exact", "path.prefix is there too; keep one of them, and write a route of its own for the other"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSection(Section):
    """Where requests for a host and path go.

    Attributes:
        to: a service of the mesh.
        strip: what is cut off the path's beginning.
        timeout: seconds for the whole request; None leaves it to the service's policy.
    """

    host: str = setting(outside.host, example="`host: shop.example.com`")
    path: PathSection = section(PathSection)
    to: str = setting(kinds.service, example="`to: payments`, the service behind it")
    strip: str | None = setting(outside.path, None)
    timeout: float | None = setting(kinds.period, None)

    def misfits(self) -> Iterator[tuple[str, str]]:
        """Only what is surely there can be cut off."""
        strip, stem = self.strip, self.path.stem
        if strip == "/":
            yield "strip", "that is every path's beginning; leave it out"
        elif strip is not None and stem != strip and not stem.startswith(f"{strip}/"):
            yield "strip", f"not every path of this route begins with it; write {stem}, or a path above it"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadersSection(Section):
    """What browsers are told with every answer, unless the service says it itself; `off` leaves one out.

    Attributes:
        hsts: seconds for which browsers come by https only (RFC 6797).
        hsts_subdomains: whether that holds for the hosts below too.
        frame: who may show pages in a frame (X-Frame-Options).
        nosniff: `on` forbids browsers to guess types (X-Content-Type-Options).
        referrer: Referrer-Policy.
        csp, permissions: Content-Security-Policy and Permissions-Policy.
        hide: fields of the service's answers that clients do not see.
    """

    # A year is what browsers' preload lists ask for; less leaves clients that come seldom without it.
    hsts: float | Off = setting(outside.optional(outside.long_period), 365 * 86_400.0)
    # Hosts below may be others' and have no TLS: whoever knows better says so.
    hsts_subdomains: bool = setting(kinds.flag, False)
    # Against clickjacking; pages that are framed by their own site need same-origin.
    frame: str | Off = setting(outside.optional(kinds.choice("deny", "same-origin")), "deny")
    nosniff: str = setting(kinds.choice("on", "off"), "on")
    # What browsers do by default since 2020; older ones send whole addresses to other sites.
    referrer: str | Off = setting(outside.optional(outside.field_value), "strict-origin-when-cross-origin")
    # There is none that fits every page.
    csp: str | Off = setting(outside.optional(outside.field_value), False)
    permissions: str | Off = setting(outside.optional(outside.field_value), False)
    # Names and versions of software tell attackers what to try.
    hide: tuple[str, ...] = setting(outside.field_names, ("server", "x-powered-by"))


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLimits(LimitsSection):
    """As the sidecar's, and what one client may take. A client is an address, of IPv6 a /64: one line has that many.

    Attributes:
        requests_per_second, burst: of one client; the burst is twice the rate where it is left out.
        per: `client`, or `all` for one bucket that all clients take from.
        connections_per_client: at once, handshakes included; trusted proxies have no such limit.
    """

    # nginx's keepalive_timeout; clients outside are many, and most do not come back.
    idle_timeout: float = setting(kinds.period, 75.0)
    requests_per_second: float | None = setting(outside.rate, None)
    burst: int | None = setting(kinds.whole(1, 1_000_000), None)
    per: str = setting(kinds.choice("client", "all"), "client")
    # A browser opens 6 to a host; an office or a school behind one address, some hundred.
    connections_per_client: int | Off = setting(outside.optional(kinds.whole(1, 1_000_000)), 512)

    def misfits(self) -> Iterator[tuple[str, str]]:
        """A burst is of a rate."""
        if self.burst is not None and self.requests_per_second is None:
            yield "burst", "without limits.requests_per_second nothing is limited; write that too, or remove burst"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain(Section):
    """How the end goes; seconds.

    Attributes:
        wait: between `/ready` saying no and closing the ports, for balancers before us; MESH_DRAIN_WAIT, else 1 s.
        timeout: for what is in flight then; MESH_DRAIN_TIMEOUT, else 30 s.
    """

    wait: float | None = setting(kinds.duration, None)
    timeout: float | None = setting(kinds.duration, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig(Section):
    """The whole file; `service`, `certificates` and `routes` must be there."""

    service: GatewayService = section(GatewayService, required="`service: {name: edge}`, the gateway's own name")
    listeners: Listeners = section(Listeners)
    certificates: tuple[CertificateSection, ...] = each(CertificateSection)
    routes: tuple[RouteSection, ...] = each(RouteSection)
    headers: HeadersSection = section(HeadersSection)
    limits: GatewayLimits = section(GatewayLimits)
    trusted_proxies: tuple[outside.Network, ...] = setting(outside.networks, ())
    admin: Admin = section(Admin)
    probes: Probes | None = section(Probes, absent=True)
    consul: ConsulSection = section(ConsulSection)
    identity: IdentitySection = section(IdentitySection)
    drain: Drain = section(Drain)
    # One process serves as fast as one core does, and most of that is TLS.
    workers: int = setting(kinds.whole(1, 256), 1)

    @property
    def meeting_port(self) -> int:
        """By which a process finds the one that it is to replace."""
        return self.listeners.https.port

    def listening(self) -> dict[str, Place]:
        """Every place to listen at, by name."""
        found = {"admin": self.admin.place}
        for name, listener in (("https", self.listeners.https), ("http", self.listeners.http)):
            for number, place in enumerate(() if listener is None else listener.places):
                found[f"listeners.{name}[{number}]" if number else f"listeners.{name}"] = place
        if self.probes is not None:
            found["probes"] = self.probes.place
        return found

    def sidecar(self) -> sidecar.Config:
        """What the gateway has in common with a sidecar that has no app: its place in the mesh."""
        return sidecar.Config(
            service=sidecar.Service(name=self.service.name, zone=self.service.zone),
            admin=self.admin,
            probes=self.probes,
            consul=self.consul,
            identity=self.identity,
            drain=sidecar.Drain(wait=self.drain.wait, timeout=self.drain.timeout),
            limits=self.limits,
        )

    def overrides(self) -> dict[str, Any]:
        """As of the sidecar's file."""
        return self.sidecar().overrides()

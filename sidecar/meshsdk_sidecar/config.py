"""The sidecar's file: what it may say, section by section, each default with its reason."""

# ruff: noqa: RUF009 - `section`, `setting` and `each` return dataclasses.field

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from meshsdk_sidecar import kinds
from meshsdk_sidecar.place import Place
from meshsdk_sidecar.sections import Section, each, section, setting

__all__ = [
    "Admin",
    "Config",
    "ConsulSection",
    "Drain",
    "HealthCheck",
    "IdentitySection",
    "Inbound",
    "LimitsSection",
    "Outbound",
    "Probes",
    "Service",
    "Upstream",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck(Section):
    """How the sidecar learns whether the app is well: a page, a connection (where nothing is written), or `none`.

    Attributes:
        http: a page; any 2xx or 3xx answer is well.
        tcp: true where a connection that is accepted is enough; false where nothing is looked at.
        port: where the page is, if not on the service's own port.
        interval, timeout: seconds between two looks, and for one.
        unhealthy, healthy: looks in a row that turn the verdict; the first look after a start counts at once.
    """

    http: str | None = setting(kinds.page, None)
    tcp: bool | None = setting(kinds.flag, None)
    port: int | None = setting(kinds.port, None)
    # A look over loopback costs the app nothing; callers eject an instance that fails within a second or two anyway.
    interval: float = setting(kinds.period, 5.0)
    timeout: float = setting(kinds.period, 1.0)
    # One late answer is no illness (a garbage collection, a swap); three in a row are. One good answer ends it.
    unhealthy: int = setting(kinds.whole(1, 100), 3)
    healthy: int = setting(kinds.whole(1, 100), 1)

    @property
    def looks(self) -> bool:
        """Whether anything is looked at."""
        return self.http is not None or self.tcp is not False

    def misfits(self) -> Iterator[tuple[str, str]]:
        """A page and a bare connection are two different looks."""
        if self.http is not None and self.tcp is not None:
            yield "tcp", "health.http is there too: a page says more, so remove tcp, or remove http"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Section):
    """The app beside which the sidecar runs; without a port or socket it only calls others and is not registered.

    Attributes:
        address, port, socket: where the app listens, as the sidecar reaches it.
        protocol: what it speaks; `tcp` is anything, carried as bytes.
        version, zone, meta, tags: told to callers in the registration; a subset of a policy names a version.
    """

    name: str = setting(kinds.service, example="`service: {name: …}`, the name callers use")
    address: str = setting(kinds.reached, "127.0.0.1")
    port: int | None = setting(kinds.port, None)
    socket: str | None = setting(kinds.socket_path, None)
    protocol: str = setting(kinds.choice("http", "tcp"), "http")
    health: HealthCheck = section(HealthCheck, words={"none": lambda: HealthCheck(tcp=False)})
    version: str | None = setting(kinds.text, None)
    zone: str | None = setting(kinds.text, None)
    meta: Mapping[str, str] | None = setting(kinds.meta, None)
    tags: tuple[str, ...] | None = setting(kinds.listed, None)

    @property
    def place(self) -> Place | None:
        """Where the app is; None for one that only calls."""
        if self.socket is not None:
            return Place(socket=self.socket)
        return None if self.port is None else Place(self.address, self.port)

    def misfits(self) -> Iterator[tuple[str, str]]:
        """One way to the app; a check needs something to look at."""
        if self.socket is not None and self.port is not None:
            yield "socket", "service.port is there too; keep the one the app listens at"
        if self.place is None and self.health != HealthCheck():
            yield "health", "there is nothing to look at: write service.port or service.socket, or remove it"
        if self.protocol == "tcp" and self.health.http is not None and self.health.port is None:
            yield (
                "health",
                "a page is asked by HTTP, and the service's protocol is tcp: write `{tcp: true}`, or health.port",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound(Section):
    """Where callers of the mesh come in, over mTLS as the policy has it; registered in Consul.

    Attributes:
        advertise: the address that callers are told; where it is left out: MESH_ADDRESS, else `address`, else the one
            by which this machine reaches Consul.
    """

    address: str = setting(kinds.address, "0.0.0.0")
    port: int = setting(kinds.port, 15006)  # the numbers that Istio's sidecars made known
    advertise: str | None = setting(kinds.reached, None)

    @property
    def place(self) -> Place:
        """Where it listens."""
        return Place(self.address, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbound(Section):
    """Where the app sends its calls; the Host header, or an absolute URL, names the service."""

    address: str = setting(kinds.address, "127.0.0.1")
    port: int = setting(kinds.port, 15001)

    @property
    def place(self) -> Place:
        """Where it listens."""
        return Place(self.address, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream(Section):
    """A local port for one service, whatever the Host header says, or for one that speaks no HTTP."""

    service: str = setting(kinds.service, example="`service: payments`, the service behind the port")
    address: str = setting(kinds.address, "127.0.0.1")
    port: int = setting(kinds.port, example="`port: 9191`, where the app reaches the service")
    protocol: str = setting(kinds.choice("http", "tcp"), "http")

    @property
    def name(self) -> str:
        """What its listener is called: one service may have several."""
        return f"upstreams.{self.service}@{self.place}"

    @property
    def place(self) -> Place:
        """Where it listens."""
        return Place(self.address, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin(Section):
    """The pages that show and change everything: on loopback, or at a unix socket, 0600."""

    address: str = setting(kinds.local, "127.0.0.1")
    port: int | None = setting(kinds.port, None)
    socket: str | None = setting(kinds.socket_path, None)

    @property
    def place(self) -> Place:
        """Where it listens: 15000 where nothing is written."""
        if self.socket is not None:
            return Place(socket=self.socket)
        return Place(self.address, self.port or 15000)

    def misfits(self) -> Iterator[tuple[str, str]]:
        """One place is enough."""
        if self.socket is not None and self.port is not None:
            yield "socket", "admin.port is there too; keep one of them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes(Section):
    """Readiness and metrics for others on the network, such as Prometheus: `/ready`, `/live`, `/metrics`, no more."""

    address: str = setting(kinds.address, "0.0.0.0")
    port: int = setting(kinds.port, example="`port: 15020`")

    @property
    def place(self) -> Place:
        """Where it listens."""
        return Place(self.address, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulSection(Section):
    """Where Consul is; what is left out comes from CONSUL_* variables."""

    url: str | None = setting(kinds.consul_url, None)
    token_file: str | None = setting(kinds.file, None)
    datacenter: str | None = setting(kinds.text, None)
    cacert: str | None = setting(kinds.file, None)
    cert: str | None = setting(kinds.file, None)
    key: str | None = setting(kinds.file, None)

    def misfits(self) -> Iterator[tuple[str, str]]:
        """A certificate is of no use without its key."""
        if (self.cert is None) != (self.key is None):
            there = "cert" if self.key is None else "key"
            yield there, "consul.cert and consul.key go together; write both or neither"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySection(Section):
    """Where the certificate comes from; what is left out comes from MESH_IDENTITY and MESH_TLS_* variables.

    Attributes:
        source: `auto` (Consul's CA, clear text where it has none), `consul` (not registered without a certificate),
            `files` or `off`.
        cert, key, ca: PEM files, watched, for `files`.
    """

    source: str | None = setting(kinds.choice("auto", "consul", "files", "off"), None)
    cert: str | None = setting(kinds.file, None)
    key: str | None = setting(kinds.file, None)
    ca: str | None = setting(kinds.file, None)

    def misfits(self) -> Iterator[tuple[str, str]]:
        """Files are read where they are asked for."""
        given = [name for name in ("cert", "key", "ca") if getattr(self, name) is not None]
        if self.source == "files" and len(given) < 3:
            yield "source", "files needs three PEM files: write identity.cert, identity.key and identity.ca"
        if given and self.source != "files":
            yield given[0], "files are read with `identity: {source: files}` only; write that, or remove them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain(Section):
    """How the end goes, in this order; seconds.

    Attributes:
        wait: between telling callers and closing the inbound port; MESH_DRAIN_WAIT, else 1 s.
        timeout: for what is in flight then; MESH_DRAIN_TIMEOUT, else 30 s.
        app: how long the app's own calls are still carried while it ends; a child is killed after that.
    """

    wait: float | None = setting(kinds.duration, None)
    timeout: float | None = setting(kinds.duration, None)
    # What Docker gives a container between SIGTERM and SIGKILL.
    app: float = setting(kinds.duration, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSection(Section):
    """Bounds on what clients send, for each connection; sizes in bytes, times in seconds.

    Attributes:
        head: of one request's head.
        body: of one request's body; None for any length, as bodies are carried while they come.
        head_timeout: from a head's first byte to its last.
        stall_timeout: while a request's body does not come, or an answer is not read.
        idle_timeout: between two requests of a connection.
        connections: of all listeners together but those of pages; None for what file descriptors allow.
    """

    # Envoy's 60 KiB, rounded; Node stops at 16, nginx at 32. A head is kept whole, so it is bounded.
    head: int = setting(kinds.size, 64 * 1024)
    body: int | None = setting(kinds.size, None)
    # Heads come in one packet or two; a client that drips them holds a descriptor for no work (slow-loris).
    head_timeout: float = setting(kinds.period, 10.0)
    # nginx's client_body_timeout and send_timeout.
    stall_timeout: float = setting(kinds.period, 60.0)
    # Twice as long as callers of the mesh keep a connection (timeouts.idle: 5m), so that they close first: a request
    # on a connection that is closing is one that may have to be repeated.
    idle_timeout: float = setting(kinds.period, 600.0)
    connections: int | None = setting(kinds.whole(1, 1_000_000), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Section):
    """The whole file. Everything but `service.name` may be left out."""

    service: Service = section(Service, required="`service: {name: …}`, the name callers use")
    inbound: Inbound = section(Inbound)
    outbound: Outbound = section(Outbound)
    upstreams: tuple[Upstream, ...] = each(Upstream)
    admin: Admin = section(Admin)
    probes: Probes | None = section(Probes, absent=True)
    consul: ConsulSection = section(ConsulSection)
    identity: IdentitySection = section(IdentitySection)
    drain: Drain = section(Drain)
    limits: LimitsSection = section(LimitsSection)
    # One process serves as fast as one core does; more are of use where the app takes more than one core as well.
    workers: int = setting(kinds.whole(1, 256), 1)

    @property
    def meeting_port(self) -> int:
        """By which a process finds the one that it is to replace: the port that is the instance's in Consul, if any."""
        return self.outbound.port if self.service.place is None else self.inbound.port

    def listening(self) -> dict[str, Place]:
        """Every place to listen at, by name; without a service to reach there is no way in."""
        found = {"outbound": self.outbound.place, "admin": self.admin.place}
        if self.service.place is not None:
            found["inbound"] = self.inbound.place
        if self.probes is not None:
            found["probes"] = self.probes.place
        return found | {upstream.name: upstream.place for upstream in self.upstreams}

    def overrides(self) -> dict[str, Any]:
        """What the file says of `meshsdk.config.Settings`; None where the environment or a default is to say it."""
        service, consul, identity = self.service, self.consul, self.identity
        return {
            "service": service.name,
            "port": None if service.place is None else self.inbound.port,
            "address": self.inbound.advertise,
            "version": service.version,
            "zone": service.zone,
            "meta": service.meta,
            "tags": service.tags,
            "consul_url": consul.url,
            "consul_token_file": consul.token_file,
            "consul_cacert": consul.cacert,
            "consul_cert": consul.cert,
            "consul_key": consul.key,
            "datacenter": consul.datacenter,
            "identity": identity.source,
            "tls_cert": identity.cert,
            "tls_key": identity.key,
            "tls_ca": identity.ca,
            "drain_wait": self.drain.wait,
            "drain_timeout": self.drain.timeout,
        }

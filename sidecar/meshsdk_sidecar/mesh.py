"""The sidecar's place in the mesh: a `Mesh` as every process has one, and what a proxy needs of it beside."""

from __future__ import annotations

import asyncio
import ssl
import time

from meshsdk.core.intentions import Intentions
from meshsdk.core.model import TLS_META
from meshsdk.identity.apart import examine_leanly
from meshsdk.mesh import Mesh, open_consul
from meshsdk.server.address import instance_id, own_address
from meshsdk.server.announce import obeyed
from meshsdk.server.beginning import Beginning
from meshsdk.server.guard import Guard
from meshsdk.server.inbound import Intake
from meshsdk.tokens.keeper import Tokens
from meshsdk_registry import Consul, Registration
from meshsdk_registry.transport import carry_by
from meshsdk_sidecar import kinds
from meshsdk_sidecar.config import Config
from meshsdk_sidecar.consul import WireCarrier
from meshsdk_sidecar.proxy.plane import Parts

__all__ = ["SidecarMesh"]


class SidecarMesh(Mesh):
    """The parts of one sidecar.

    Args:
        config: the sidecar's file; what it leaves open comes from the environment, as for every process.

    Attributes:
        draining: whether the end has begun; connections of callers end with their reply then.

    Raises:
        ConfigError: the settings do not fit; all mistakes are named.
    """

    # The library that examines certificates is 8 MB, and would be needed for a moment every other day.
    _examine = staticmethod(examine_leanly)

    def __init__(self, config: Config) -> None:
        carry_by(WireCarrier)
        super().__init__(**config.overrides())
        self.config = config
        self.draining = False
        who = self._who()
        guard = Guard(
            self.directory.own_plan, intentions=who.intentions, trust_domain=who.trust_domain, tokens=who.tokens
        )
        self._beginning = Beginning(self.settings.service, self.settings.first_wait, who.sources, keys=guard)
        self.intake = Intake(
            clock=time.monotonic,
            tracing=self._tracing,
            sink=self._sink,
            closing=lambda: self.draining,
            access_log=lambda: self.directory.own_plan().access_log,
            guard=guard,
            explain=self.settings.explain_denials,
            own_id=self._own_id if self.settings.forward_client_cert else None,
        )

    def parts(self) -> Parts:
        """What the data plane stands on."""
        return Parts(
            services=self.directory,
            secure=self._securing,
            generation=lambda: self._securing.generation,
            ready=self._securing.await_ready,
            intake=self.intake,
            own_plan=self.directory.own_plan,
            context=self._context,
            sink=self._sink,
        )

    def consul(self) -> Consul:
        """A client of Consul; to be used in one event loop, and closed there."""
        return open_consul(self.settings)

    async def await_policy(self) -> None:
        """Wait, a bounded time, until it is known which hosts the app may call outside the mesh."""
        await self.directory.asettled_plan()

    async def await_known(self) -> None:
        """Wait, a bounded time, until it is known who may come in: certificate, intentions, keys of tokens."""
        await asyncio.gather(self._securing.await_ready(), self._beginning.await_over())

    # --- what Consul is told --------------------------------------------------------------------------------

    def registration(self) -> Registration | None:
        """What callers are to be told now; None while they must not be told of us, or where there is no app."""
        settings, service = self.settings, self.config.service
        if settings.port is None or self.unready:
            return None
        facts = {"mesh": "1", "sidecar": "1", "protocol": service.protocol, **self._tls()}
        facts |= {name: text for name, text in (("zone", settings.zone), ("version", settings.version)) if text}
        return Registration(
            settings.service,
            instance_id(settings.service, settings.port),
            self.address,
            settings.port,
            {**facts, **settings.meta},
            settings.tags,
            ttl=settings.ttl,
            native=TLS_META in facts and settings.identity in {"auto", "consul"},
        )

    @property
    def address(self) -> str:
        """Where callers reach this machine; empty where Consul knows better."""
        listening = self.config.inbound.address
        named = self.settings.address or ("" if kinds.is_wildcard(listening) else listening)
        return named or own_address(self.settings.consul_url)

    @property
    def unready(self) -> str:
        """Why callers must not come in yet: a certificate must be there, and is not; empty otherwise."""
        if self.settings.identity not in {"consul", "files"} or self._mode == "off" or self._certified:
            return ""
        state = None if self.identity is None else self.identity.state
        return (state.reason if state is not None else "") or "there is no certificate"

    @property
    def own_intentions(self) -> Intentions | None:
        """Consul's intentions about the service; None where there is none and the default is to allow."""
        return None if self._intentions is None else self._intentions.current()

    @property
    def tokens(self) -> Tokens:
        """Judges end users' tokens, and knows the keys for that."""
        return self._tokens

    def obeyed(self) -> str:
        """The policy versions in force, as the check in Consul says them."""
        return obeyed(self.directory.policy_versions())

    @property
    def _mode(self) -> str:
        return self.directory.own_plan().tls

    @property
    def _certified(self) -> bool:
        return self.identity is not None and self.identity.material is not None

    def _tls(self) -> dict[str, str]:
        """As `meshsdk.server.entrance` has it: told while there is a certificate to show, or clear text is refused."""
        mode = self._mode
        if self.identity is None or mode == "off" or not (self._certified or mode == "strict"):
            return {}
        return {TLS_META: mode}

    def _context(self) -> ssl.SSLContext | None:
        return None if self.identity is None else self.identity.server_context()

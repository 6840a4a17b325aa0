"""`Identity`: what is in force now. Calls and handshakes ask here each time, so that they follow every renewal.

Rule 1  Certificate, key, roots and the contexts made of them are one immutable value, swapped whole.
Rule 2  Material that is refused replaces nothing. What is in force stays until it expires, and never a moment longer:
        dates are compared with the wall clock whenever somebody asks, however late the timers are.
Rule 3  The provider runs on the background loop from the first use on. A forked child goes on with what its parent had
        and, on its first use, runs the provider for itself.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from meshsdk.identity.contexts import client_context, server_context
from meshsdk.identity.events import Aged, Event, Expired, Issued, Recovered, Trouble, log_event
from meshsdk.identity.lifetime import Lifetime
from meshsdk.identity.material import BadMaterial, Material
from meshsdk.identity.providers.provider import Provider
from meshsdk.identity.renewal import Loop, Renewal
from meshsdk.identity.verify import expecting
from meshsdk.identity.verifying import Refusals, ServerContext, SwitchingContext
from meshsdk.wire.security import Security

__all__ = ["Identity", "NoIdentity", "State"]

_log = logging.getLogger("meshsdk.identity")

LOOK_AGAIN = 30.0
"""Seconds between two looks at the wall clock, which may be set, while no age is due."""

RETRY = 5.0
"""Seconds until contexts are tried again that could not be made for want of descriptors."""

EXPIRING = 0.9
"""Share of the lifetime from which the state is `expiring`: Consul renews before it."""


class NoIdentity(ConnectionError):
    """Nothing can be called or served over TLS: there is no certificate yet, or it has expired; says which and why."""


@dataclass(frozen=True, slots=True)
class State:
    """Where an identity stands, and why where it is not simply valid."""

    name: Literal["none", "valid", "expiring", "expired"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _InForce:
    """Rule 1. `securities` is a cache, with one entry for each service called."""

    material: Material
    client: ssl.SSLContext
    server: ServerContext
    securities: dict[str, Security] = field(default_factory=dict)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Identity:
    """The identity of this process, as far as it has one.

    Args:
        provider: where material comes from.
        loop: where the provider runs.
        now: the wall clock, with a time zone.
        trust_domains: whose identities to believe besides our own domain's.

    Attributes:
        renewals, failures: how often other material came, and how often renewing failed by `Trouble.kind`, in this
            process: a forked child counts from zero.
        generation: counts what was put in force; a connection made under a smaller number shows an older certificate.
        refusals: of handshakes on `server_context`.
    """

    def __init__(
        self,
        provider: Provider,
        loop: Loop,
        *,
        now: Callable[[], datetime] = _utc_now,
        trust_domains: Collection[str] = (),
    ) -> None:
        self._now = now
        self._trust_domains = tuple(trust_domains)
        self._in_force: _InForce | None = None
        self._lifetime: Lifetime | None = None
        self._listeners: list[Callable[[Event], None]] = [log_event]
        self._pending: Material | None = None  # what no context could be made of for want of descriptors
        self._trouble = ""
        self.generation = 0
        self.refusals = Refusals()
        self._count_from_zero()
        self._server = SwitchingContext(lambda: self._usable().server, self.refusals)
        self._renewal = Renewal(provider, loop, self.publish, self.tick, forked=self._count_from_zero)

    def _count_from_zero(self) -> None:
        self.renewals = 0
        self.failures: dict[str, int] = {}
        self.refusals.total = 0

    def __repr__(self) -> str:
        state = self.state
        who = f" {self._in_force.material.spiffe_id}" if self._in_force else ""
        return f"<Identity{who} {state.name}>"

    # --- asked by calls and handshakes ----------------------------------------------------------------------

    @property
    def material(self) -> Material | None:
        """What is in force; None before the first and after its end."""
        try:
            return self._usable().material
        except NoIdentity:
            return None

    @property
    def trust_domain(self) -> str:
        """Our own, also when the certificate has expired; empty before the first. It costs no look at the clock."""
        held = self._in_force
        if held is None:
            self.start()
            return ""
        return held.material.trust_domain

    @property
    def trust_domains(self) -> frozenset[str]:
        """Whose identities are believed now; none without material."""
        material = self.material
        return frozenset((material.trust_domain, *self._trust_domains)) if material else frozenset()

    @property
    def state(self) -> State:
        """Where we stand."""
        held = self._in_force
        if held is None:
            return State("none", f"no certificate yet: {self._trouble or 'none was given'}")
        now, material = self._now(), held.material
        trouble = f"; it cannot be renewed: {self._trouble}" if self._trouble else ""
        if now >= material.not_after:
            return State("expired", f"the certificate of {material} has expired{trouble}")
        if now >= material.used_up(EXPIRING):
            left = (material.not_after - now).total_seconds()
            return State("expiring", f"the certificate of {material} expires in {left:.0f} s{trouble}")
        return State("valid", self._trouble)

    def client_security(self, service: str) -> Security:
        """How to secure a new connection to an instance of `service`; ask for each, and keep none.

        Raises:
            NoIdentity: there is no certificate to show.
        """
        held = self._usable()
        security = held.securities.get(service)
        if security is None:
            domains = (held.material.trust_domain, *self._trust_domains)
            security = held.securities[service] = Security(held.client, service, expecting(service, domains))
        return security

    def server_context(self) -> ServerContext:
        """The context for every server of this process, always the same one: its handshakes follow what is in force.

        While there is no certificate, they are refused.
        """
        self.start()
        return self._server

    def wait_ready(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the first material; say whether there is some that is valid."""
        self.start()
        self._renewal.wait(timeout)
        return self.material is not None

    def wait_answer(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until there is material, or a reason why there is none."""
        self.start()
        self._renewal.wait(timeout, answer=True)

    async def await_answer(self, seconds: float) -> None:
        """The same from any event loop."""
        self.start()
        await self._renewal.await_ready(seconds, answer=True)

    async def await_ready(self, seconds: float) -> bool:
        """The same from any event loop."""
        self.start()
        await self._renewal.await_ready(seconds)
        return self.material is not None

    def _usable(self) -> _InForce:
        self.start()
        held = self._in_force
        if held is None or self._now() >= held.material.not_after:
            raise NoIdentity(self.state.reason)
        return held

    # --- asked by telemetry ---------------------------------------------------------------------------------

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Tell `listener` each event, on the background loop; after `Issued` the new contexts are in force already."""
        self._listeners.append(listener)

    def readings(self) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """Names of gauges in the catalogue, their labels and values; below 0 s once expired."""
        if self._in_force is not None:
            left = self._in_force.material.not_after - self._now()
            yield "mesh.identity.expiry", (), left.total_seconds()
        yield "mesh.identity.renewals", (), self.renewals
        yield "mesh.identity.handshake_failures", (), self.refusals.total
        for kind, count in self.failures.items():
            yield "mesh.identity.failures", (kind,), count

    # --- told by the provider and by time, on the background loop -------------------------------------------

    def publish(self, found: Material | Trouble) -> None:
        """Put material in force, or remember why there is none."""
        if isinstance(found, Trouble):
            self._fail(found)
            return
        self._take(found)
        if self._pending is not None:
            self._renewal.wake()

    def _take(self, found: Material) -> None:
        held, self._pending = self._in_force, None
        if held is None or held.material != found:
            try:
                self._put_in_force(found)
            except OSError as error:
                self._pending = found
                self._fail(Trouble("refused", f"no TLS context can be made, trying again in {RETRY:g} s: {error}"))
                return
            except BadMaterial as error:
                self._fail(Trouble("refused", str(error)))
                return
            self.renewals += 1
            self._tell(Issued(found, first=held is None))
        trouble, self._trouble = self._trouble, ""
        if trouble:
            self._tell(Recovered(trouble))
        self._renewal.came()

    def tick(self) -> float:
        """Tell the age that was reached, and say in how many seconds to look again."""
        if self._pending is not None:
            self._take(self._pending)
        lifetime, now, most = self._lifetime, self._now(), LOOK_AGAIN if self._pending is None else RETRY
        if lifetime is None:
            return most
        for share in lifetime.due(now)[-1:]:
            material = lifetime.material
            left = (material.not_after - now).total_seconds()
            self._tell(Aged(material, share, left) if share < 1 else Expired(material))
        due = lifetime.next_in(now)
        return most if due is None else min(due, most)

    def _put_in_force(self, material: Material) -> None:
        server = server_context(material, trust_domains=self._trust_domains, refusals=self.refusals)
        self._in_force = _InForce(material, client_context(material), server)
        self._lifetime = Lifetime(material, self._now())
        self.generation += 1

    def _fail(self, trouble: Trouble) -> None:
        self.failures[trouble.kind] = self.failures.get(trouble.kind, 0) + 1
        self._renewal.answered()
        if trouble.words != self._trouble:
            self._trouble = trouble.words
            self._tell(trouble)

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001  # one broken listener must not cost the process its identity
                _log.exception("a listener of the identity failed: %r", listener)

    # --- beginnings and ends (rule 3) -----------------------------------------------------------------------

    def start(self) -> None:
        """Run the provider, unless it runs; every use does so."""
        self._renewal.start()

    def close(self) -> None:
        """Stop renewing. What is in force stays so until it expires, so that calls at the process's end still work."""
        self._renewal.close()

    async def aclose(self) -> None:
        """The same from asyncio."""
        await self._renewal.aclose()

"""The dev agent's CA: roots, rotation, and leafs renewed in time; keys live in memory only.

As Consul 1.8.7 does it: a new key in the configuration makes a new root, which the former one cross-signs; the former
stays listed. A leaf is renewed at 60 to 90 % of its life, or within a short jitter after a rotation, as long as
somebody asks for it.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from meshsdk_registry.agent import certificates
from meshsdk_registry.agent.certificates import Signer, Validity
from meshsdk_registry.agent.journal import Journal

__all__ = ["JITTER", "LEAF_LIFE", "ROOT_LIFE", "Authority", "Configuration", "Leaf", "Lifetimes", "Root", "today"]

INTERMEDIATE_LIFE = timedelta(days=7)
"""Of a cross-signed intermediate, as observed on Consul 1.8.7."""

LEAF_LIFE, ROOT_LIFE, JITTER = 72 * 3600.0, 3652 * 86400.0, 0.5
"""Seconds; the first two are Consul's."""

MIN_LEAF, MAX_LEAF = 1.0, 8760 * 3600.0
"""Seconds. Consul's own minimum is an hour; X.509 knows whole seconds."""


def today() -> datetime:
    """The wall clock's time, with its zone: certificates are read on other machines."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long things live, in seconds.

    Attributes:
        leaf: of a service's certificate, where the CA's configuration does not say otherwise.
        root: of a root; after it nothing verifies until the CA is rotated.
        jitter: within this after a rotation each leaf is signed anew; Consul takes up to 30.
    """

    leaf: float = LEAF_LIFE
    root: float = ROOT_LIFE
    jitter: float = JITTER

    def __post_init__(self) -> None:
        if not MIN_LEAF <= self.leaf < MAX_LEAF:
            raise ValueError(f"leaf lifetime {self.leaf:g}: write 1 second or more, and less than 8760 hours")
        if self.root < MIN_LEAF:
            raise ValueError(f"root lifetime {self.root:g}: write 1 second or more")
        if self.jitter < 0:
            raise ValueError(f"jitter {self.jitter:g}: write 0 or more seconds")


@dataclass(slots=True)
class Root:
    """A root with what the one before it says of it."""

    signer: Signer
    intermediates: tuple[str, ...]
    created: int
    modified: int
    active: bool = True


@dataclass(slots=True)
class Leaf:
    """A service's certificate.

    Attributes:
        chain: PEM; the intermediates of its root follow the certificate.
        renewed_at: monotonic seconds.
        wanted: whether anybody asked for it since it was signed.
    """

    service: str
    uri: str
    serial: int
    chain: str
    key: str = field(repr=False)
    valid_after: datetime
    valid_before: datetime
    created: int
    modified: int
    renewed_at: float
    wanted: bool = True


@dataclass(frozen=True, slots=True)
class Configuration:
    """What `PUT /v1/connect/ca/configuration` says. `leaf`: seconds, None for the agent's default."""

    config: Mapping[str, Any] | None
    force: bool = False
    leaf: float | None = None
    created: int = 0
    modified: int = 0


class Authority:
    """Signs for one trust domain.

    Args:
        clock: monotonic seconds, for renewal.
        today: the wall clock, for what certificates say.
    """

    def __init__(
        self,
        journal: Journal,
        datacenter: str,
        lifetimes: Lifetimes,
        *,
        clock: Callable[[], float],
        today: Callable[[], datetime] = today,
        rng: random.Random | None = None,
    ) -> None:
        self.lifetimes = lifetimes
        self.trust_domain = f"{uuid.uuid4()}.consul"
        self._journal, self._datacenter = journal, datacenter
        self._clock, self._today, self._rng = clock, today, rng or random.Random()
        self._serial = 0
        self._leafs: dict[str, Leaf] = {}
        self.index = journal.advance()
        periods = {"IntermediateCertTTL": "8760h", "LeafCertTTL": _go(lifetimes.leaf), "RotationPeriod": "2160h"}
        self.configuration = Configuration(periods, created=self.index, modified=self.index)
        self.roots = [Root(self._new_signer(certificates.make_key()), (), self.index, self.index)]

    @property
    def active(self) -> Root:
        """The root that signs."""
        return next(root for root in self.roots if root.active)

    # --- the CA -------------------------------------------------------------------------------------

    def configure(self, new: Configuration) -> None:
        """Take a configuration; another key than before, or none where there was one, makes a new root.

        Raises:
            ValueError: the key is none.
        """
        old, key = _key(self.configuration), _key(new)
        if key != old:
            self._rotate(certificates.read_key(key) if key else certificates.make_key())
        elif (new.config, new.force) == (self.configuration.config, self.configuration.force):
            return
        self.index = self._journal.advance()
        self.configuration = Configuration(
            new.config, new.force, new.leaf, created=self.configuration.created, modified=self.index
        )

    def _rotate(self, key: certificates.Key) -> None:
        former, signer, index = self.active, self._new_signer(key), self._journal.advance()
        life = min(INTERMEDIATE_LIFE, timedelta(seconds=self.lifetimes.root))
        vouched = former.signer.cross_sign(signer, Validity(self._next_serial(), self._today(), life))
        for root in self.roots:
            root.active, root.modified = False, index
        self.roots.append(Root(signer, (certificates.pem(vouched),), index, index))
        for leaf in self._leafs.values():
            leaf.renewed_at = min(leaf.renewed_at, self._clock() + self._rng.uniform(0, self.lifetimes.jitter))

    def _new_signer(self, key: certificates.Key) -> Signer:
        validity = Validity(self._next_serial(), self._today(), timedelta(seconds=self.lifetimes.root))
        label = "".join(self._rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=8))
        return Signer.new(key, self.trust_domain, label, validity)

    # --- leafs --------------------------------------------------------------------------------------

    def leaf(self, service: str) -> Leaf:
        """The service's certificate, made at the first call.

        Raises:
            ValueError: in Consul's words, for what cannot be the end of a SPIFFE id.
        """
        if not service:
            raise ValueError("URI must be either service or agent")
        if "/" in service:
            uri = f"spiffe://{self.trust_domain}/ns/default/dc/{self._datacenter}/svc/{service}"
            raise ValueError(f"SPIFFE ID is not in the expected format: {uri}")
        leaf = self._leafs.get(service)
        if leaf is None:
            leaf = self._leafs[service] = self._sign(service)
        leaf.wanted = True
        return leaf

    def renew(self, now: float) -> None:
        """Sign anew what is due; forget what nobody asked for since it was signed."""
        for service, leaf in list(self._leafs.items()):
            if now < leaf.renewed_at:
                continue
            if leaf.wanted:
                self._leafs[service] = self._sign(service, leaf.created)
                self._leafs[service].wanted = False
            else:
                del self._leafs[service]

    def next_renewal(self) -> float | None:
        """When `renew` has something to do next."""
        return min((leaf.renewed_at for leaf in self._leafs.values()), default=None)

    def _sign(self, service: str, created: int = 0) -> Leaf:
        seconds = self.lifetimes.leaf if self.configuration.leaf is None else self.configuration.leaf
        uri = certificates.service_uri(self.trust_domain, self._datacenter, service)
        key, serial, root = certificates.make_key(), self._next_serial(), self.active
        validity = Validity(serial, self._today(), timedelta(seconds=seconds))
        certificate = root.signer.sign_leaf(key, service, uri, validity)
        index = self._journal.advance()
        return Leaf(
            service=service,
            uri=uri,
            serial=serial,
            chain="".join((certificates.pem(certificate), *root.intermediates)),
            key=certificates.private_pem(key),
            valid_after=certificate.not_valid_before_utc,
            valid_before=certificate.not_valid_after_utc,
            created=created or index,
            modified=index,
            renewed_at=self._clock() + seconds * self._rng.uniform(0.6, 0.9),
        )

    def _next_serial(self) -> int:
        self._serial += 1
        return self._serial


def _key(configuration: Configuration) -> str:
    return str((configuration.config or {}).get("PrivateKey") or "")


def _go(seconds: float) -> str:
    """As Go writes a duration."""
    return f"{round(seconds / 3600)}h" if seconds % 3600 == 0 else f"{seconds:g}s"

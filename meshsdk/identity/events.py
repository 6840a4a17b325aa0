"""What an identity tells those who listen: small records; `log_event` writes them to the log."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from meshsdk.identity.material import Material

__all__ = ["Aged", "Event", "Expired", "Issued", "Recovered", "Trouble", "log_event"]

_log = logging.getLogger("meshsdk.identity")


@dataclass(frozen=True, slots=True)
class Issued:
    """Other material is in force from now on; `first` if there was none before."""

    material: Material
    first: bool


@dataclass(frozen=True, slots=True)
class Aged:
    """This share of the lifetime is used up (0.5, 0.75, 0.9), and nothing newer came."""

    material: Material
    share: float
    left: float


@dataclass(frozen=True, slots=True)
class Expired:
    """The certificate is no longer valid: nothing is called or served over TLS until another one comes."""

    material: Material


@dataclass(frozen=True, slots=True)
class Trouble:
    """A provider could not renew; what is in force stays so until it expires.

    Attributes:
        kind: `refused`: what it was given cannot be used; `away`: who gives it cannot be asked.
        words: what is wrong.
    """

    kind: str
    words: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """The last `Trouble` is over."""

    words: str


Event = Issued | Aged | Expired | Trouble | Recovered


def log_event(event: Event) -> None:
    """Write an event to the log. Consul renews between 60 and 90 % of the lifetime: from then on it is a warning."""
    match event:
        case Issued(material, first):
            _log.info("identity %s: %s", "in force" if first else "renewed", material)
        case Aged(material, share, left):
            level = logging.WARNING if share >= 0.9 else logging.INFO
            used = f"{share:.0%} of its lifetime used, {left:.0f} s left"
            _log.log(level, "identity not renewed yet: %s; %s", material, used)
        case Expired(material):
            _log.error("identity expired: %s; calls and handshakes over TLS fail until it is renewed", material)
        case Trouble(_, words):
            _log.warning("identity cannot be renewed: %s", words)
        case Recovered(words):  # as loud as what it ends
            _log.warning("identity can be renewed again; it could not be: %s", words)

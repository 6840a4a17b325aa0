"""What a process proves its identity with: certificate chain, key and roots, which were examined before.

The rules are those of `meshsdk.identity.examination`, apart from here: the library for certificates takes 8 MB, and a
process that has another one examine for it (`meshsdk.identity.apart`) never needs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from meshsdk.identity.spiffe import SpiffeId

__all__ = ["BadMaterial", "Material"]


class BadMaterial(ValueError):
    """Certificate, key and roots cannot be used; the message says which of them, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Material:
    """Everything TLS needs of an identity; made by `meshsdk.identity.examination.examined`.

    Attributes:
        chain_pem: our certificate, then those between it and a root.
        key_pem: its private key, PKCS #8 without a passphrase.
        roots_pem: every CA to trust.
        trust_domain: whose identities these roots stand for.
        spiffe_id: who we are.
        serial: of our certificate, as Consul and openssl write it: hexadecimal.
        not_before, not_after: when our certificate is valid, with a time zone.
    """

    chain_pem: str
    key_pem: str = field(repr=False)
    roots_pem: str
    trust_domain: str
    spiffe_id: SpiffeId
    serial: str
    not_before: datetime
    not_after: datetime

    @property
    def lifetime(self) -> timedelta:
        """How long the certificate is valid in all."""
        return self.not_after - self.not_before

    def used_up(self, share: float) -> datetime:
        """When this share of the lifetime, 0 to 1, is over."""
        return self.not_before + self.lifetime * share

    def __str__(self) -> str:
        return f"{self.spiffe_id}, serial {self.serial}, valid until {self.not_after:%Y-%m-%d %H:%M:%S} UTC"

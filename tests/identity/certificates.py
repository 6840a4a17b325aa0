"""Certificates made for a test."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from meshsdk.identity.examination import examined
from meshsdk.identity.material import Material
from meshsdk.identity.spiffe import SpiffeId

NOW = datetime.now(UTC)


@dataclass
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, passphrase: bytes = b"") -> bytes:
        seal = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, seal)

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        cert.write_bytes(self.pem)
        key.write_bytes(self.key_pem())
        return cert, key


def issue(
    name: str,
    by: Pair | None = None,
    uris: tuple[str, ...] = (),
    start: datetime = NOW - timedelta(hours=1),
    end: datetime = NOW + timedelta(hours=1),
    *,
    ca: bool | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
    uses: tuple[x509.ObjectIdentifier, ...] = (),
) -> Pair:
    """A certificate for 127.0.0.1 and `uris`, signed `by` a CA; a CA of its own without one.

    Args:
        ca: whether it is a CA's; by default one that nobody else signed is.
        key: instead of a new one, as a cross-signed intermediate has.
        uses: the extended key usage; none says nothing.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    is_ca = by is None if ca is None else ca
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if not is_ca:
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(
            x509.SubjectAlternativeName([*names, x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
    if uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    return Pair(builder.sign(by.key if by else key, hashes.SHA256()), key)


DOMAIN = "test.consul"


def id_of(service: str, domain: str = DOMAIN) -> str:
    """The SPIFFE id that Consul would give."""
    return f"spiffe://{domain}/ns/default/dc/dc1/svc/{service}"


def leaf(service: str, by: Pair, **options: Any) -> Pair:
    """A service's certificate."""
    return issue(service, by, (id_of(service),), **options)


def material(service: str, *roots: Pair, domain: str = DOMAIN, now: datetime = NOW, **options: Any) -> Material:
    """A service's material, signed by the first root and trusting all of them."""
    pair = issue(service, roots[0], (id_of(service, domain),), **options)
    return assemble(pair, *roots, now=now)


def assemble(pair: Pair, *roots: Pair, chain: tuple[Pair, ...] = (), now: datetime = NOW) -> Material:
    """A certificate, its chain and the roots to trust, as material."""
    pem = "".join(one.pem.decode() for one in (pair, *chain))
    trusted = "".join(root.pem.decode() for root in roots)
    return examined(pem, pair.key_pem().decode(), trusted, now=now)


def unchecked(pair: Pair, *roots: Pair) -> Material:
    """Material that its own checks would refuse, as a peer that does not check would use it."""
    return Material(
        chain_pem=pair.pem.decode(),
        key_pem=pair.key_pem().decode(),
        roots_pem="".join(root.pem.decode() for root in roots),
        trust_domain=DOMAIN,
        spiffe_id=SpiffeId.parse(id_of("unchecked")),
        serial="0",
        not_before=pair.certificate.not_valid_before_utc,
        not_after=pair.certificate.not_valid_after_utc,
    )

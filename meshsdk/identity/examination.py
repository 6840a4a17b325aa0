"""The examination of a certificate, its key and roots: whether they belong together; what passes is `Material`.

Rule 1  The first certificate is ours. It has exactly one URI name, a SPIFFE id with a path, and is no CA (X.509-SVID,
        sections 2 and 4.1); if it says what its key may be used for, both ends of TLS are among it (section 4.4).
Rule 2  The key is that certificate's, and the certificate leads to one of the roots, over the others of the chain.
Rule 3  All roots given are trusted, old and new: Consul lists an old one for as long as it is to be trusted.
Rule 4  At `now` the certificate and at least one root are valid.
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshsdk.identity.material import BadMaterial, Material
from meshsdk.identity.spiffe import SpiffeId

__all__ = ["examined", "lapse"]

_BOTH_ENDS = {ExtendedKeyUsageOID.SERVER_AUTH: "server", ExtendedKeyUsageOID.CLIENT_AUTH: "client"}


def examined(
    chain: str, key: str, roots: str, *, now: datetime, trust_domain: str = "", rooted: bool = True
) -> Material:
    """Examine three PEM texts and make them one.

    Args:
        chain, key, roots: as the attributes of `Material`.
        now: with a time zone.
        trust_domain: that of the roots where their source says it; empty takes the certificate's.
        rooted: whether the certificate must lead to one of the roots.

    Raises:
        BadMaterial: a rule above is broken.
    """
    certificates = _certificates(chain, "certificate")
    ours, trusted = certificates[0], _certificates(roots, "roots")
    identity = _identity(ours)
    private = _private(key, ours)
    _check_use(ours)
    if words := lapse(ours, now):
        raise BadMaterial(f"certificate of {identity}: {words}")
    _check_roots(trusted, now)
    if rooted:
        _check_path(certificates, trusted, identity)
    if trust_domain and trust_domain != identity.trust_domain:
        raise BadMaterial(f"certificate of {identity}: its trust domain is not that of the roots, {trust_domain}")
    return Material(
        chain_pem=_pem(certificates),
        key_pem=private,
        roots_pem=_pem(trusted),
        trust_domain=identity.trust_domain,
        spiffe_id=identity,
        serial=f"{ours.serial_number:x}",
        not_before=ours.not_valid_before_utc,
        not_after=ours.not_valid_after_utc,
    )


def lapse(certificate: x509.Certificate, now: datetime) -> str:
    """Why a certificate is not valid now, empty where it is."""
    if now > certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if now < certificate.not_valid_before_utc:
        since = certificate.not_valid_before_utc
        return f"is not valid before {since:%Y-%m-%d %H:%M} UTC (is this machine's clock right?)"
    return ""


def _certificates(pem: str, what: str) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
        for certificate in found:
            certificate.extensions  # noqa: B018  # parsed when first asked for, and may be garbage
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise BadMaterial(f"{what}: no PEM certificate (-----BEGIN CERTIFICATE-----) can be read: {error}") from error
    return found


def _identity(certificate: x509.Certificate) -> SpiffeId:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    if len(uris) != 1:
        subject = certificate.subject.rfc4514_string()
        found = " and ".join(map(repr, uris)) or "none"
        raise BadMaterial(f"certificate of {subject}: exactly one URI name (its SPIFFE id) is allowed; it has {found}")
    try:
        return SpiffeId.of_workload(uris[0])
    except ValueError as error:
        raise BadMaterial(f"certificate: its URI name is no identity: {error}") from error


def _private(key: str, certificate: x509.Certificate) -> str:
    """The key written anew: what we can read around and in it, such as SEC 1, not every TLS library can."""
    try:
        private = load_pem_private_key(key.encode(), None)
    except TypeError as error:
        raise BadMaterial("key: it is encrypted; give it without a passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadMaterial("key: no PEM private key that can be read (-----BEGIN PRIVATE KEY-----)") from error
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        theirs = certificate.public_key().public_bytes(*form)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadMaterial(f"certificate: its public key cannot be read: {error}") from error
    if private.public_key().public_bytes(*form) != theirs:
        raise BadMaterial("key: not that of the first certificate: their public keys differ; give both of one issue")
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _check_use(certificate: x509.Certificate) -> None:
    if _is_ca(certificate):
        raise BadMaterial("certificate: it is a CA's; the first one must be the workload's own")
    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    missing = [name for oid, name in _BOTH_ENDS.items() if oid not in uses]
    if missing:
        raise BadMaterial(
            f"certificate: its extended key usage leaves out {' and '.join(missing)} authentication; both are needed,"
            " as a process calls and is called with it"
        )


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _check_roots(roots: list[x509.Certificate], now: datetime) -> None:
    for root in roots:
        if not _is_ca(root):
            raise BadMaterial(f"roots: {root.subject.rfc4514_string() or 'one'} is no CA certificate")
    lapses = [lapse(root, now) for root in roots]
    if all(lapses):
        raise BadMaterial(f"roots: none is valid now: the first one {lapses[0]}")


def _check_path(chain: list[x509.Certificate], roots: list[x509.Certificate], identity: SpiffeId) -> None:
    """Rule 2. Peers check this again, and the dates and limits on the way, which only they can refuse."""
    links = chain
    while not any(_signed(links[0], root) for root in roots):
        above = [other for other in links[1:] if _signed(links[0], other)]
        if not above:
            issuer = links[0].issuer.rfc4514_string()
            raise BadMaterial(
                f"certificate of {identity}: it leads to none of the {len(roots)} roots: nothing of"
                f" its issuer {issuer!r} is among them or in the chain"
            )
        links = [above[0], *(other for other in links[1:] if other is not above[0])]


def _signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _pem(certificates: list[x509.Certificate]) -> str:
    """Without the remarks that tools write between certificates."""
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)

"""The dev agent's X.509: roots, cross-signed intermediates and leafs as Consul 1.8.7 makes them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = [
    "Key",
    "Signer",
    "Validity",
    "fingerprint",
    "key_id",
    "make_key",
    "pem",
    "private_pem",
    "read_key",
    "service_uri",
]

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

BACK_DATED = timedelta(minutes=1)
"""For callers whose clock is behind; not for certificates that live shorter than an hour, of which it would be much."""

_URI_TEXT = "!$&'()*+,-.:;=@_~"


@dataclass(frozen=True, slots=True)
class Validity:
    """A certificate's serial number, when it is signed, and how long it lives."""

    serial: int
    now: datetime
    lifetime: timedelta

    def span(self, back_dated: timedelta) -> tuple[datetime, datetime]:
        """X.509 knows whole seconds: a short life gets one more, or it would be up to one shorter than asked for."""
        if self.lifetime >= timedelta(hours=1):
            start = self.now.replace(microsecond=0) - back_dated
            return start, start + self.lifetime
        start = self.now.replace(microsecond=0)
        return start, start + self.lifetime + timedelta(seconds=1)


@dataclass(frozen=True)
class Signer:
    """A CA key with the certificate that names it."""

    key: Key
    certificate: x509.Certificate

    @classmethod
    def new(cls, key: Key, domain: str, label: str, validity: Validity) -> Signer:
        """Sign a root by itself; `domain` is the trust domain, `label` tells it from other roots."""
        name = _name(f"pri-{label}.consul.ca.{domain[:8]}.consul")
        public = key.public_key()
        start, end = validity.span(timedelta())
        builder = (
            x509.CertificateBuilder(name, name, public, validity.serial, start, end)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_subject(public), critical=False)
            .add_extension(_authority(key_id(key)), critical=False)
            .add_extension(_uri(f"spiffe://{domain}"), critical=False)
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    def cross_sign(self, other: Signer, validity: Validity) -> x509.Certificate:
        """Vouch for another root: its name and key, signed by this one."""
        theirs = other.certificate
        builder = x509.CertificateBuilder(
            self.certificate.subject, theirs.subject, theirs.public_key(), validity.serial, *validity.span(BACK_DATED)
        )
        for extension in theirs.extensions:
            if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
                builder = builder.add_extension(extension.value, extension.critical)
        return builder.add_extension(_authority(key_id(self.key)), critical=False).sign(self.key, hashes.SHA256())

    def sign_leaf(self, key: Key, service: str, uri: str, validity: Validity) -> x509.Certificate:
        """Sign a service's certificate for both ends of a connection."""
        domain = uri.removeprefix("spiffe://")[:8]
        label = re.sub("[^a-z0-9]", "", service.lower())[:36]  # RFC 5280: a common name has 64 characters at most
        subject, public = _name(f"{label}.svc.default.{domain}.consul"), key.public_key()
        start, end = validity.span(BACK_DATED)
        builder = (
            x509.CertificateBuilder(self.certificate.subject, subject, public, validity.serial, start, end)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_BOTH_ENDS), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_subject(public), critical=False)
            .add_extension(_authority(key_id(self.key)), critical=False)
            .add_extension(_uri(uri), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256())


_BOTH_ENDS = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]


def make_key() -> Key:
    """Make a P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def read_key(text: str) -> Key:
    """Read a PEM key of the kinds Consul takes; ValueError for anything else."""
    key = serialization.load_pem_private_key(text.encode(), password=None)
    if not isinstance(key, Key):
        raise ValueError("unknown key type")  # noqa: TRY004 - one kind of error for one bad text
    return key


def private_pem(key: Key) -> str:
    """The key as Consul writes it (SEC 1, "EC PRIVATE KEY")."""
    form, none = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, none).decode()


def pem(certificate: x509.Certificate) -> str:
    """The certificate as text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def fingerprint(certificate: x509.Certificate) -> str:
    """Consul's id of a root: SHA-1 of the certificate, in hexadecimal pairs."""
    return certificate.fingerprint(hashes.SHA1()).hex(":")


def key_id(key: Key) -> bytes:
    """Consul's id of a key: SHA-256 of its public half."""
    return _digest(key.public_key())


def service_uri(domain: str, datacenter: str, service: str) -> str:
    """A service's SPIFFE id."""
    return f"spiffe://{domain}/ns/default/dc/{datacenter}/svc/{quote(service, safe=_URI_TEXT)}"


def _digest(public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(serialization.Encoding.DER, form)).digest()


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _uri(uri: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])


def _subject(public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier(_digest(public))


def _authority(identifier: bytes) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(identifier, None, None)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not ca,
        data_encipherment=not ca,
        key_agreement=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )

"""Certificates for hosts, by an authority that tests trust."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


class Issuer:
    """An authority whose files lie in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
        made = self._made(self._name, self._key, days=30, ca=True).sign(self._key, SHA256())
        self.roots = made.public_bytes(Encoding.PEM).decode()

    def issue(self, name: str, *hosts: str, days: float = 30, odd: bytes = b"") -> dict[str, str]:
        """Write `name.pem` and `name.key`; returns the section of the gateway's file.

        Args:
            odd: written in place of the hosts' names, in DER.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        made = self._made(subject, key, days=days, ca=False)
        if hosts:
            names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
            made = made.add_extension(names, critical=False)
        if odd:
            names_id = x509.SubjectAlternativeName.oid
            made = made.add_extension(x509.UnrecognizedExtension(names_id, odd), critical=False)
        cert, secret = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        cert.write_bytes(made.sign(self._key, SHA256()).public_bytes(Encoding.PEM))
        return {"cert": str(cert), "key": str(secret)}

    def client(self) -> ssl.SSLContext:
        """A client's context that trusts it."""
        context = ssl.create_default_context(cadata=self.roots)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    def _made(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: float, ca: bool
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(authority, critical=False)
        )

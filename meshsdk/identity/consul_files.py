"""The PEM files for Consul's HTTPS API, looked at before TLS does, which does not say which file is wrong and why.

Imported where such files are given, as the library for certificates takes 8 MB.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from meshsdk.errors import ConfigError
from meshsdk.identity.examination import lapse

__all__ = ["authorities", "check_pair"]


def authorities(path: Path, now: datetime) -> str:
    """The CAs of a file that are valid: an old one beside its successor is usual, only old ones are a mistake.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    certificates = _certificates(path, "CA certificate")
    valid = [certificate for certificate in certificates if not lapse(certificate, now)]
    if not valid:
        raise ConfigError(f"CA certificate {path}: {lapse(certificates[0], now)}; give the CA that Consul uses now")
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in valid)


def check_pair(cert: Path, key: Path, now: datetime) -> None:
    """See that a certificate is valid now and the key its own.

    Raises:
        ConfigError: one of the files is not what it should be.
    """
    certificate = _certificates(cert, "client certificate")[0]
    if words := lapse(certificate, now):
        raise ConfigError(f"client certificate {cert}: {words}; renew it")
    content = _read(key, "client key")
    try:
        private = load_pem_private_key(content, None)
    except TypeError as error:
        raise ConfigError(f"client key {key}: it is encrypted; give it without a passphrase, mode 0600") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"client key {key}: it holds no PEM private key ({error})") from error
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise ConfigError(f"client key {key} does not belong to client certificate {cert}: their public keys differ")


def _certificates(path: Path, what: str) -> list[x509.Certificate]:
    content = _read(path, what)
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise ConfigError(f"{what} {path}: it holds no PEM certificate (-----BEGIN CERTIFICATE-----)") from error


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what} {path}: cannot be read: {error.strerror or error}") from error

"""The public certificates: read from files, chosen by the host that a client names, read again when they change.

Rule 1  The files are looked at every second, by time of change, inode and size. A pair is used only if it is whole and
        belongs together; until then, what was in force stays, and the log says why.
Rule 2  A handshake takes what is in force at that moment; connections that stand keep what they have.
Rule 3  The client's host decides (SNI, RFC 6066): the very name, else the wildcard one label above (RFC 9525, 6.3).
        A client that names none, or writes an address there as it must not, gets the first certificate of the file; one
        that names a host of nobody is refused in the handshake, as no certificate could satisfy it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from meshsdk_sidecar.gateway.config import CertificateSection

__all__ = ["BadCertificate", "Certificates", "Shown", "read_certificate", "wildcard_of"]

log = logging.getLogger("meshsdk.gateway")

PERIOD = 1.0
"""Seconds between two looks at the files."""

MAX_BYTES = 1024 * 1024
SOON = timedelta(days=14)
"""A certificate that ends within this time is warned of: renewal is due at a third of 90 days."""

# What is left for TLS 1.2 with forward secrecy and authenticated encryption (RFC 9325, 4.2); those of 1.3 are all good.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

_ADDRESS = re.compile(r"[0-9.]+|.*:.*")

_Stamp = tuple[tuple[int, int, int], ...]


class BadCertificate(ValueError):
    """The files cannot be shown to clients; says why.

    Attributes:
        key: of the section in the file, which is at fault.
    """

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key = key


@dataclass(frozen=True, slots=True)
class Shown:
    """A certificate that is shown.

    Attributes:
        hosts: for which.
        stamp: of the files it was read from.
    """

    context: ssl.SSLContext
    hosts: tuple[str, ...]
    serial: str
    not_before: datetime
    not_after: datetime
    stamp: _Stamp


def read_certificate(section: CertificateSection) -> Shown:
    """Read a certificate with its key.

    Raises:
        BadCertificate: it cannot be used.
    """
    stamp = _stamp(section)
    leaf = _leaf(section.cert)
    context = _context()
    try:
        context.load_cert_chain(section.cert, section.key, password=_locked)
    except ssl.SSLError as error:
        raise BadCertificate("key", _reason(section, error)) from error
    except ValueError as error:
        raise BadCertificate("key", str(error)) from error
    hosts = _hosts(section, leaf)
    if _stamp(section) != stamp:
        raise BadCertificate("cert", f"{section.cert} and {section.key} change while they are read")
    serial = f"{leaf.serial_number:x}"
    return Shown(context, hosts, serial, leaf.not_valid_before_utc, leaf.not_valid_after_utc, stamp)


def wildcard_of(host: str) -> str:
    """The wildcard that a host falls under."""
    return f"*.{host.partition('.')[2]}"


class Certificates:
    """All of them.

    Args:
        sections: of the file.
        sleep: takes seconds.

    Raises:
        BadCertificate: one of them cannot be used.
    """

    def __init__(
        self, sections: Sequence[CertificateSection], *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._sections = sections
        self._sleep = sleep
        self._told: dict[int, str] = {}
        self.shown = [read_certificate(section) for section in sections]
        self.context = _context()
        self.context.sni_callback = self._choose
        self._settle()

    def find(self, host: str | None) -> Shown | None:
        """The one to show for a host; None where no certificate is for it."""
        if host is None or _ADDRESS.fullmatch(host):
            return self.shown[0]
        name = host.lower().removesuffix(".")
        return self._by_host.get(name) or self._by_host.get(wildcard_of(name))

    async def follow(self) -> None:
        """Look at the files, until cancelled."""
        while True:
            await self._sleep(PERIOD)
            if self.look():
                self._settle()

    def look(self) -> bool:
        """Read what has changed; returns whether anything is in force now that was not before."""
        changed = False
        for number, section in enumerate(self._sections):
            words = ""
            try:
                if _stamp(section) != self.shown[number].stamp:
                    self.shown[number] = read_certificate(section)
                    changed = True
                    log.info("certificate %s was read again: %s", section.cert, _said(self.shown[number]))
            except BadCertificate as error:
                words = str(error)
                if words != self._told.get(number):
                    log.error("the certificate in force stays: %s", words)
            self._told[number] = words
        return changed

    def _settle(self) -> None:
        self._by_host: dict[str, Shown] = {}
        for shown in self.shown:
            for host in shown.hosts:
                self._by_host.setdefault(host, shown)
            if shown.not_after - datetime.now(UTC) < SOON:
                log.warning("a certificate ends soon, or has: %s", _said(shown))

    def _choose(self, connection: ssl.SSLObject, host: str | None, _: ssl.SSLContext) -> int | None:
        shown = self.find(host)
        if shown is None:
            return ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = shown.context
        return None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996 ends those before
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    # Compression tells lengths (CRIME); a client that renegotiates makes us sign for ever (CVE-2011-1473).
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _locked() -> str:
    raise ValueError("the key is encrypted and nobody is there to ask for its password; write it without one")


def _stamp(section: CertificateSection) -> _Stamp:
    found = []
    for key in ("cert", "key"):
        file = Path(getattr(section, key))
        try:
            facts = file.stat()
        except OSError as error:
            raise BadCertificate(key, f"{file} cannot be read: {error.strerror or error}") from error
        if facts.st_size > MAX_BYTES:
            raise BadCertificate(key, f"{file} has {facts.st_size} bytes; a PEM file has a few thousand")
        found.append((facts.st_mtime_ns, facts.st_ino, facts.st_size))
    return tuple(found)


def _leaf(file: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(Path(file).read_bytes())[0]
    except OSError as error:
        raise BadCertificate("cert", f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise BadCertificate(
            "cert", f"{file} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
        ) from error


def _reason(section: CertificateSection, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{section.key} is not the key of {section.cert}; write the two that belong together"
    return f"{section.key} holds no private key in PEM form that fits {section.cert} ({error.reason or error})"


def _hosts(section: CertificateSection, leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        own = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    except x509.ExtensionNotFound:
        own = []
    if section.hosts is None:
        if not own:
            raise BadCertificate("cert", f"{section.cert} is for no host (no DNS name among its alternative names)")
        return tuple(own)
    if missing := [host for host in section.hosts if host not in own and wildcard_of(host) not in own]:
        raise BadCertificate(
            "hosts", f"{section.cert} is not for {', '.join(missing)}, but for {', '.join(own) or '-'}"
        )
    return section.hosts


def _said(shown: Shown) -> str:
    return f"{', '.join(shown.hosts)} until {shown.not_after:%Y-%m-%d %H:%M} UTC (serial {shown.serial})"

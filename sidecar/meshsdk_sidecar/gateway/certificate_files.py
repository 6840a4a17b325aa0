"""The files of the public certificates: read, checked, and read again when they change.

Rule 1  The files are looked at every second, by time of change, inode and size. A pair is used only if it is whole and
        belongs together; until then, what was in force stays, and the log says why.
Rule 2  One process reads them: what it has checked goes to whoever shakes hands, be it itself or its workers. So a
        worker that begins while a file is half written shows what the others show.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from meshsdk_sidecar.gateway.certificates import Pair, context_of, wildcard_of
from meshsdk_sidecar.gateway.config import CertificateSection

__all__ = ["BadCertificate", "CertificateFiles", "read_certificate"]

log = logging.getLogger("meshsdk.gateway")

PERIOD = 1.0
"""Seconds between two looks at the files."""

MAX_BYTES = 1024 * 1024
SOON = timedelta(days=14)
"""A certificate that ends within this time is warned of: renewal is due at a third of 90 days."""

_Stamp = tuple[tuple[int, int, int], ...]


class BadCertificate(ValueError):
    """The files cannot be shown to clients; says why.

    Attributes:
        key: of the section in the file, which is at fault.
    """

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key = key


def read_certificate(section: CertificateSection) -> Pair:
    """Read a certificate with its key.

    Raises:
        BadCertificate: it cannot be used.
    """
    return _read(section)[0]


class CertificateFiles:
    """All of them.

    Args:
        sections: of the file.
        sleep: takes seconds.

    Attributes:
        pairs: what is in force, in the order of the file; another tuple when something has changed.

    Raises:
        BadCertificate: one of them cannot be used.
    """

    def __init__(
        self, sections: Sequence[CertificateSection], *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._sections = sections
        self._sleep = sleep
        self._told: dict[int, str] = {}
        read = [_read(section) for section in sections]
        self._stamps = [stamp for _, stamp in read]
        self.pairs = tuple(pair for pair, _ in read)
        self._warn()

    async def follow(self) -> None:
        """Look at the files, until cancelled."""
        while True:
            await self._sleep(PERIOD)
            self.look()

    def look(self) -> bool:
        """Read what has changed; returns whether anything is in force now that was not before."""
        pairs = list(self.pairs)
        for number, section in enumerate(self._sections):
            words = ""
            try:
                if _stamp(section) != self._stamps[number]:
                    pairs[number], self._stamps[number] = _read(section)
                    log.info("certificate %s was read again: %s", section.cert, _said(pairs[number]))
            except BadCertificate as error:
                words = str(error)
                if words != self._told.get(number):
                    log.error("the certificate in force stays: %s", words)
            self._told[number] = words
        changed = any(new is not old for new, old in zip(pairs, self.pairs, strict=True))
        if changed:
            before, self.pairs = self.pairs, tuple(pairs)
            self._warn()
            self._warn_of_lost(before)
        return changed

    def _warn(self) -> None:
        for pair in self.pairs:
            if pair.not_after - datetime.now(UTC) < SOON:
                log.warning("a certificate ends soon, or has: %s", _said(pair))

    def _warn_of_lost(self, before: Sequence[Pair]) -> None:
        """The new pair is in force all the same: kept from use, it would end for the hosts that it is still for."""
        shown = {host for pair in self.pairs for host in pair.hosts}
        if lost := [host for pair in before for host in pair.hosts if not {host, wildcard_of(host)} & shown]:
            names = ", ".join(dict.fromkeys(lost))
            log.warning("no certificate is for %s any more: who asks for it is refused in the handshake", names)


def _read(section: CertificateSection) -> tuple[Pair, _Stamp]:
    stamp = _stamp(section)
    chain, key = _bytes(section, "cert"), _bytes(section, "key")
    leaf = _leaf(section.cert, chain)
    texts = chain.decode("utf-8", "replace"), key.decode("utf-8", "replace")  # whatever is no PEM is a comment
    hosts = _hosts(section, leaf)
    pair = Pair(hosts, *texts, f"{leaf.serial_number:x}", leaf.not_valid_before_utc, leaf.not_valid_after_utc)
    try:
        context_of(pair)
    except ssl.SSLError as error:
        raise BadCertificate("key", _reason(section, error)) from error
    except OSError as error:
        raise BadCertificate("cert", f"{section.cert} cannot be tried: {error.strerror or error}") from error
    except ValueError as error:
        raise BadCertificate("key", str(error)) from error
    if _stamp(section) != stamp:
        raise BadCertificate("cert", f"{section.cert} and {section.key} change while they are read")
    return pair, stamp


def _bytes(section: CertificateSection, key: str) -> bytes:
    file = Path(getattr(section, key))
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadCertificate(key, f"{file} cannot be read: {error.strerror or error}") from error


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


def _leaf(file: str, chain: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(chain)[0]
    except (ValueError, x509.InvalidVersion) as error:
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
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        said = f"{section.cert} does not say in due form which hosts it is for: {error}"
        raise BadCertificate("cert", said) from error
    if section.hosts is None:
        if not own:
            raise BadCertificate("cert", f"{section.cert} is for no host (no DNS name among its alternative names)")
        return tuple(own)
    if missing := [host for host in section.hosts if host not in own and wildcard_of(host) not in own]:
        raise BadCertificate(
            "hosts", f"{section.cert} is not for {', '.join(missing)}, but for {', '.join(own) or '-'}"
        )
    return section.hosts


def _said(pair: Pair) -> str:
    return f"{', '.join(pair.hosts)} until {pair.not_after:%Y-%m-%d %H:%M} UTC (serial {pair.serial})"

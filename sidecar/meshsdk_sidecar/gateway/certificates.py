"""The public certificates as clients are shown them: chosen by the host that a client names.

Rule 1  A handshake takes what is in force at that moment; connections that stand keep what they have.
Rule 2  The client's host decides (SNI, RFC 6066): the very name, else the wildcard one label above (RFC 9525, 6.3).
        A client that names none, or writes an address there as it must not, gets the first certificate of the file; one
        that names a host of nobody is refused in the handshake, as no certificate could satisfy it.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from meshsdk.identity.secret_file import secret_file

__all__ = ["Certificates", "Pair", "context_of", "wildcard_of"]

log = logging.getLogger("meshsdk.gateway")

# What is left for TLS 1.2 with forward secrecy and authenticated encryption (RFC 9325, 4.2); those of 1.3 are all good.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

_ADDRESS = re.compile(r"[0-9.]+|.*:.*")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, which were found to belong together.

    Attributes:
        hosts: for which it is shown.
        chain, key: in PEM form.
    """

    hosts: tuple[str, ...]
    chain: str = field(repr=False)
    key: str = field(repr=False)
    serial: str
    not_before: datetime
    not_after: datetime


def context_of(pair: Pair) -> ssl.SSLContext:
    """A context that shows it.

    Raises:
        ssl.SSLError: the two do not belong together, or are none.
        OSError: there is no descriptor left.
        ValueError: the key is encrypted.
    """
    context = _context()
    with secret_file(pair.chain) as chain, secret_file(pair.key) as key:
        context.load_cert_chain(chain, key, password=_locked)
    return context


def wildcard_of(host: str) -> str:
    """The wildcard that a host falls under."""
    return f"*.{host.partition('.')[2]}"


class Certificates:
    """All of them.

    Args:
        pairs: tells those in force, in the order of the file; another sequence when something has changed.

    Attributes:
        context: for handshakes; it has no certificate itself, and chooses one when it has heard the host.
    """

    def __init__(self, pairs: Callable[[], Sequence[Pair]]) -> None:
        self._pairs = pairs
        self._seen: Sequence[Pair] | None = None
        self._contexts: dict[Pair, ssl.SSLContext] = {}
        self._by_host: dict[str, ssl.SSLContext] = {}
        self.context = _context()
        self.context.sni_callback = self._choose

    def find(self, host: str | None) -> ssl.SSLContext | None:
        """Shows the certificate of a host; None where none is for it."""
        if self._seen is not (pairs := self._pairs()):
            self._settle(pairs)
        if host is None or _ADDRESS.fullmatch(host):
            return next(iter(self._contexts.values()))
        name = host.lower().removesuffix(".")
        return self._by_host.get(name) or self._by_host.get(wildcard_of(name))

    def _settle(self, pairs: Sequence[Pair]) -> None:
        try:
            self._contexts = {pair: self._contexts.get(pair) or context_of(pair) for pair in pairs}
        except OSError as error:  # descriptors are used up: the next handshake tries again
            if not self._contexts:
                raise
            log.error("the certificates before stay in force: %s", error)
            return
        self._by_host = {host: context for pair, context in reversed(self._contexts.items()) for host in pair.hosts}
        self._seen = pairs

    def _choose(self, connection: ssl.SSLObject, host: str | None, _: ssl.SSLContext) -> int | None:
        found = self.find(host)
        if found is None:
            return ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = found
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

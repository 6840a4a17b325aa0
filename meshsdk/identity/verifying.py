"""Server contexts that finish the caller's verification within the handshake, and one that follows every rotation.

Servers take an `ssl.SSLContext` once and call nothing of ours before they read: so the check of the caller's id is part
of `do_handshake`, and the change of certificates part of OpenSSL's callback for the server's name, which it calls with
or without a name, before a certificate is chosen. Both work in asyncio, in uvloop and on blocking sockets.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Collection
from typing import Any, Self

from meshsdk.identity.verify import Connection, verified_peer
from meshsdk.wire.security import PeerRejected

__all__ = ["Refusals", "ServerContext", "SwitchingContext"]

_log = logging.getLogger("meshsdk.identity")

QUIET = 10.0
"""Seconds between two log lines about failed handshakes: anybody who reaches the port can cause them."""

_UNFINISHED = ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError


class Refusals:
    """Tells handshakes that failed in the log, at most one in `QUIET` seconds, with how many there were.

    Args:
        clock: monotonic seconds.

    Attributes:
        total: all of them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told_at: float | None = None
        self._untold = 0
        self.total = 0

    def add(self, why: str) -> None:
        """Count one."""
        self.total += 1
        now = self._clock()
        if self._told_at is not None and now - self._told_at < QUIET:
            self._untold += 1
            return
        more, self._untold = self._untold, 0
        self._told_at = now
        since = f" (and {more} more since the last such line)" if more else ""
        _log.warning("a caller's TLS handshake failed: %s%s", why, since)


class _CheckedObject(ssl.SSLObject):
    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLError as error:
            _failed(self, error)
            raise
        _check(self)


class _CheckedSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except ssl.SSLError as error:
            _failed(self, error)
            raise
        _check(self)


class ServerContext(ssl.SSLContext):
    """A context that lets a caller in only if its certificate says, in exactly one way, who it is, and it is one of us.

    Args:
        refusals: where handshakes that fail are told.

    Attributes:
        trust_domains: of whom callers may be.
    """

    sslobject_class = _CheckedObject
    sslsocket_class = _CheckedSocket

    def __new__(cls, *_args: Any, **_options: Any) -> Self:  # noqa: D102  # SSLContext's own takes the protocol
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, refusals: Refusals) -> None:
        self.refusals = refusals
        self.trust_domains: Collection[str] = ()
        self.verify_mode = ssl.CERT_REQUIRED
        self.minimum_version = ssl.TLSVersion.TLSv1_3
        self.num_tickets = 0
        self.set_alpn_protocols(["http/1.1"])


class SwitchingContext(ServerContext):
    """A context without a certificate: each handshake uses the one that is in force then, or is refused.

    OpenSSL takes certificate and roots from the context switched to, and the rest from this one.

    Args:
        current: gives the context in force; raises ConnectionError where there is none, with words for the log.
        refusals: where handshakes that fail are told.
    """

    def __init__(self, current: Callable[[], ServerContext], refusals: Refusals) -> None:
        super().__init__(refusals)

        def switch(connection: Connection, _name: str | None, _base: ssl.SSLContext) -> int | None:
            try:
                connection.context = current()
            except ConnectionError as error:
                refusals.add(str(error))
                return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
            return None

        self.sni_callback = switch


def _check(connection: Connection) -> None:
    context = connection.context
    assert isinstance(context, ServerContext)
    try:
        verified_peer(connection, context.trust_domains)
    except PeerRejected as error:
        context.refusals.add(str(error))
        # What servers expect of a handshake that fails, and all of them close the connection then.
        raise ssl.SSLCertVerificationError(1, str(error)) from error


def _failed(connection: Connection, error: ssl.SSLError) -> None:
    """Servers keep these to themselves. One that is not done is none, and one hung up on has nothing to tell."""
    if isinstance(error, _UNFINISHED) or error.reason == "CALLBACK_FAILED":  # the callback has told that one
        return
    context = connection.context
    assert isinstance(context, ServerContext)
    context.refusals.add(str(error))

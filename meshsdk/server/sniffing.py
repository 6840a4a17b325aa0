"""TLS and clear text on a WSGI server's own port, by the first byte, for gunicorn and werkzeug.

Both call `wrap_socket` of the context they were given, for each connection; so that is where it is decided. In clear
text the socket is handed back as it is: a strict service refuses such requests in words (guard.py), and its ready page
still answers, without which nobody would know that the port is open.

A thread waits here, so both the first byte and the handshake have a bound.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any, Self

from meshsdk.server.listener import HANDSHAKE, TLS_HANDSHAKE
from meshsdk.server.verified import Verified, verified

__all__ = ["FIRST_BYTE", "SniffingContext", "verified_of"]

log = logging.getLogger("meshsdk.server")

FIRST_BYTE = 1.0
"""Seconds a worker waits for a connection's first byte: browsers open some in advance and send nothing on them."""

_VERIFIED = "meshsdk_verified"


class SniffingContext(ssl.SSLContext):
    """A context that takes clear text as well.

    Args:
        context: gives the context for a handshake; None while the policy says `off`.
    """

    def __new__(cls, *_args: Any, **_options: Any) -> Self:  # noqa: D102  # SSLContext's own takes the protocol
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, context: Callable[[], ssl.SSLContext | None]) -> None:
        self._current = context

    def wrap_socket(  # type: ignore[override]
        self, sock: socket.socket, *args: Any, suppress_ragged_eofs: bool = True, **options: Any
    ) -> socket.socket:
        """Finish the handshake of a connection that begins with one; give back any other as it is.

        werkzeug wraps the listening socket, whose connections come here again.

        Raises:
            ssl.SSLError: the handshake failed, or took too long.
        """
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return super().wrap_socket(sock, *args, **options)
        context = self._current()
        if context is None or not _begins_with_tls(sock):
            return sock
        return _shaken(sock, context, suppress_ragged_eofs=suppress_ragged_eofs)


def verified_of(connection: object) -> Verified | None:
    """Who calls on a connection that went through `SniffingContext`; None in clear text and for any other."""
    found: Verified | None = getattr(connection, _VERIFIED, None)
    return found


def _begins_with_tls(sock: socket.socket) -> bool:
    before = sock.gettimeout()
    sock.settimeout(FIRST_BYTE)
    try:
        first = sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        raise ssl.SSLError(ssl.SSL_ERROR_EOF, f"nothing came within {FIRST_BYTE:g} s") from None
    except OSError as error:
        raise ssl.SSLError(ssl.SSL_ERROR_EOF, f"the caller hung up: {error}") from error
    sock.settimeout(before)
    return first == TLS_HANDSHAKE


def _shaken(sock: socket.socket, context: ssl.SSLContext, *, suppress_ragged_eofs: bool) -> ssl.SSLSocket:
    """Shake hands; whatever fails here is one `SSL_ERROR_EOF`, on which gunicorn closes without a line of its own."""
    before = sock.gettimeout()
    sock.settimeout(HANDSHAKE)  # for all of the handshake, not each read: OpenSSL's module counts it so
    try:
        wrapped = context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=suppress_ragged_eofs)
    except OSError as error:  # the identity has counted and told what was refused
        log.debug("a handshake failed: %s", error)
        raise ssl.SSLError(ssl.SSL_ERROR_EOF, f"the handshake failed: {error}") from error
    wrapped.settimeout(before)
    setattr(wrapped, _VERIFIED, verified(wrapped))
    return wrapped

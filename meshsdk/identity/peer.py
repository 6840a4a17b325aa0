"""The verified peer of a request, as each server tells it; never from a header.

Rule 1  Only what the server's own TLS verified counts: its socket, its `tls` extension, or the variables it sets when
        it verified. A header, which anybody can send, is never read; WSGI keeps those apart under `HTTP_`.
Rule 2  No TLS, no certificate, no SPIFFE id in it: no peer, None.
Rule 3  A certificate with more than one URI name is no SPIFFE certificate (X.509-SVID, section 2), so it is None too.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, cast

from meshsdk.identity.spiffe import SpiffeId

__all__ = ["asgi_peer", "certificate_peer", "socket_peer", "wsgi_peer"]

log = logging.getLogger("meshsdk.identity")

_SOCKETS = ("gunicorn.socket", "werkzeug.socket")


def asgi_peer(scope: Mapping[str, Any]) -> SpiffeId | None:
    """The peer in an ASGI scope: the first of `extensions.tls.client_cert_chain`, unless `client_cert_error` is set."""
    tls = (scope.get("extensions") or {}).get("tls") or {}
    chain = tls.get("client_cert_chain") or ()
    if not chain or tls.get("client_cert_error"):
        return None
    return certificate_peer(chain[0])


def wsgi_peer(environ: Mapping[str, Any]) -> SpiffeId | None:
    """The peer in a WSGI environ: from gunicorn's or werkzeug's socket, else from what a server says it verified.

    `SSL_CLIENT_CERT` counts only beside `SSL_CLIENT_VERIFY=SUCCESS`, as cheroot and mod_ssl set them.
    """
    for name in _SOCKETS:
        connection = environ.get(name)
        if connection is not None:
            return socket_peer(connection)
    if environ.get("SSL_CLIENT_VERIFY") == "SUCCESS" and environ.get("SSL_CLIENT_CERT"):
        return certificate_peer(environ["SSL_CLIENT_CERT"])
    return None


def socket_peer(connection: object) -> SpiffeId | None:
    """The peer of an `ssl.SSLSocket` or `ssl.SSLObject`, None for a plain socket or an unverified peer.

    `getpeercert()` is empty unless the context asked for a certificate and verified it.
    """
    getpeercert = getattr(connection, "getpeercert", None)
    if getpeercert is None:
        return None
    try:
        certificate = cast("Mapping[str, Any] | None", getpeercert()) or {}
    except (ValueError, OSError, ssl.SSLError) as error:  # the handshake is not done, or the peer is gone
        log.debug("no peer certificate: %s", error)
        return None
    names = cast("Sequence[tuple[str, str]]", certificate.get("subjectAltName", ()))
    return _only([value for kind, value in names if kind == "URI"])


def certificate_peer(pem: str | bytes) -> SpiffeId | None:
    """The SPIFFE id in a PEM certificate that somebody else has verified."""
    from cryptography import x509  # 8 MB, which only servers need that give a certificate as text

    try:
        certificate = x509.load_pem_x509_certificate(pem.encode() if isinstance(pem, str) else pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        log.debug("no peer in the certificate: %s", error)
        return None
    return _only(names.get_values_for_type(x509.UniformResourceIdentifier))


def _only(uris: Sequence[str]) -> SpiffeId | None:
    if len(uris) != 1:
        return None
    try:
        return SpiffeId.of_workload(uris[0])
    except ValueError as error:
        log.debug("no peer in the certificate: %s", error)
        return None

"""What TLS has verified of a connection's other end: read once, when the handshake is done."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from typing import Any, Final

from meshsdk.identity.peer import socket_peer
from meshsdk.identity.spiffe import SpiffeId

__all__ = ["PEER", "Verified", "verified"]

PEER: Final = "meshsdk.peer"
"""The extension of ASGI under which our own protocol leaves who calls: nothing is parsed for each request."""


@dataclass(slots=True)
class Verified:
    """Who calls on a connection.

    Attributes:
        peer: the SPIFFE id.
        expires: when the certificate does, in seconds since 1970: the wall clock decides, it may be set.
        tls: the `tls` extension of ASGI.
    """

    peer: SpiffeId
    expires: float
    tls: dict[str, Any]

    @property
    def expired(self) -> bool:
        """Whether the certificate that was verified then is no longer valid now."""
        return time.time() >= self.expires  # noqa: TID251 - dates of certificates have no other clock


def verified(connection: ssl.SSLObject | ssl.SSLSocket | None) -> Verified | None:
    """Who calls on a connection after its handshake; None in clear text or without an identity."""
    if connection is None:
        return None
    peer, certificate = socket_peer(connection), connection.getpeercert()
    der = connection.getpeercert(binary_form=True)
    if peer is None or not certificate or der is None:
        return None
    tls = {
        "server_cert": None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(der)],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": 0x0304,  # contexts of the mesh take nothing older than TLS 1.3
        "cipher_suite": None,
    }
    return Verified(peer, ssl.cert_time_to_seconds(str(certificate["notAfter"])), tls)

"""TLS to an endpoint: with which context, and what the peer must be before a byte of the request is sent."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from meshsdk.core.model import Endpoint

__all__ = ["PeerRejected", "Secure", "Security", "in_clear"]


class PeerRejected(Exception):
    """The peer's certificate is valid and not the one to talk to; the message says who it is and who it should be."""


@dataclass(frozen=True, slots=True)
class Security:
    """How to secure the connections to one endpoint.

    Attributes:
        context: replaced whole when certificates change; connections opened before go on with theirs.
        server_hostname: for SNI, and for the context's check where it has one; empty sends none.
        check: called after the handshake and before the first byte of a request; raises `PeerRejected`.
    """

    context: ssl.SSLContext
    server_hostname: str = ""
    check: Callable[[ssl.SSLObject | ssl.SSLSocket], None] | None = None


# Asked for each new connection: the endpoint, and the service it is called as. None is clear text; raises
# `PeerRejected` or OSError where the endpoint must not be called as things are.
Secure = Callable[[Endpoint, str], Security | None]


def in_clear(endpoint: Endpoint, service: str) -> None:
    """Secure nothing."""

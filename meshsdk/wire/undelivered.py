"""`x-mesh-undelivered`: a sidecar's word that its app never got the request it answers with 503.

Rule 1  It is believed of an instance that TLS has verified as one of the mesh, by its SPIFFE id, and of whatever is
        asked over loopback. Anybody else could make us send what must not be sent twice.
Rule 2  A sidecar alone says it: what its app or its caller send under this name is dropped.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Protocol

from meshsdk.core.model import Failure, Phase

__all__ = ["SAID", "UNDELIVERED", "Connected", "undelivered"]

UNDELIVERED = b"x-mesh-undelivered"

SAID = ((UNDELIVERED, b"1"),)
"""The field as it is sent."""


class Connected(Protocol):
    """A transport of asyncio, or what httpx calls a network stream."""

    def get_extra_info(self, name: str, /) -> Any:
        """What is known by a name: `ssl_object`, and the other end's address as `peername` or `server_addr`."""
        ...


def undelivered(headers: Sequence[tuple[bytes, bytes]], connection: Connected) -> Failure | None:
    """What a 503 with this word counts as: a try of which nothing was written. None without it, or from a stranger."""
    if not any(name.lower() == UNDELIVERED for name, _ in headers):
        return None
    tls, told = connection.get_extra_info("ssl_object"), connection.get_extra_info
    if not (_loopback(told("peername") or told("server_addr")) if tls is None else _of_the_mesh(tls)):
        return None
    return Failure(Phase.NOT_WRITTEN, "connect-failure", "its sidecar answered that the app could not be reached")


def _of_the_mesh(tls: Any) -> bool:
    names = (tls.getpeercert() or {}).get("subjectAltName", ())
    return any(kind == "URI" and value.startswith("spiffe://") for kind, value in names)


def _loopback(address: Any) -> bool:
    if not isinstance(address, tuple):
        return False  # a Unix socket leads to no sidecar
    try:
        found = ipaddress.ip_address(address[0].partition("%")[0])
    except ValueError:
        return False
    within = getattr(found, "ipv4_mapped", None)
    return (within or found).is_loopback

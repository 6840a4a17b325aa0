"""A place to listen at or to connect to: an address with a port, or a unix socket."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from meshsdk_sidecar.kinds import is_wildcard

__all__ = ["Place", "clash"]


@dataclass(frozen=True, slots=True)
class Place:
    """One of the two: `address` with `port`, or `socket`, a path."""

    address: str = ""
    port: int = 0
    socket: str = ""

    def __str__(self) -> str:
        if self.socket:
            return f"unix:{self.socket}"
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def clash(one: Place, other: Place) -> bool:
    """Whether two cannot listen at these places at once."""
    if one.socket or other.socket:
        return one.socket == other.socket
    if one.port != other.port:
        return False
    left, right = _numbered(one.address), _numbered(other.address)
    if left == right:
        return True
    # All addresses of IPv4 leave those of IPv6 free: our sockets for `::` take IPv6 only.
    return (is_wildcard(left) or is_wildcard(right)) and (":" in left) == (":" in right)


def _numbered(address: str) -> str:
    """A host name is compared as text, but for the one whose address everybody knows."""
    if address == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address

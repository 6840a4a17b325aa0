"""Which hosts outside the mesh may be called."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

__all__ = ["Egress", "plain_host"]

_NAME = re.compile(r"([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


@dataclass(frozen=True, slots=True)
class Egress:
    """The policy for calls out of the mesh.

    Attributes:
        default: `allow` lets through every host, `deny` only those listed.
        allow: hosts as `plain_host` has them, `*.` and a host for all below it; `:port` behind for that port only.
    """

    default: str = "allow"
    allow: tuple[str, ...] = ()

    def permits(self, host: str, port: int) -> bool:
        """Whether a host may be called; one that is no name and no address may not, unless all may."""
        if self.default == "allow":
            return True
        name = plain_host(host)
        return any(each in self.allow or f"{each}:{port}" in self.allow for each in _entries(name))


def _entries(name: str) -> list[str]:
    """Itself, and `*.` with each name above it; an address has none above it."""
    if not name:
        return []
    labels = name.split(".")
    if name[0] == "[" or labels[-1].isdigit():  # no top-level domain is a number (RFC 3696, 2)
        return [name]
    return [name, *(f"*.{'.'.join(labels[number:])}" for number in range(1, len(labels)))]


def plain_host(host: str) -> str:
    """The one way to write a host: small letters, no dot at the end, IPv6 compressed and in brackets; empty for none.

    Other spellings of an IPv4 address (`127.1`, `0x7f000001`) are names here: to be let through, they must be listed.
    """
    name = host.lower().removesuffix(".")
    if ":" in name:
        try:
            return f"[{ipaddress.IPv6Address(name.removeprefix('[').removesuffix(']'))}]"
        except ValueError:
            return ""
    return name if len(name) <= 253 and _NAME.fullmatch(name) else ""

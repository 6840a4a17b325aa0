"""Which host names are mesh services, and which lie outside the mesh.

Rule 1  A single label (`payments`) or a label under `.mesh` (`payments.mesh`) is a mesh service.
Rule 2  `localhost`, addresses and names with other dots lie outside.
Rule 3  What looks like a mesh name and cannot be one is refused with what to write instead, never sent elsewhere.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["SERVICE_NAME", "NoName", "service_of"]


class NoName(ValueError):
    """The host names nothing that can be called; the message says what to write instead."""


_ADDRESS = re.compile(r"[0-9]+|0x[0-9a-f]+|.*:.*")

SERVICE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A service's name is a DNS label in small letters (RFC 1035, 2.3.1): it is a host name in URLs."""


@lru_cache(maxsize=4096)
def service_of(raw_host: bytes) -> str | None:
    """The mesh service that a host without a port names, None for one outside the mesh.

    Raises:
        NoName: it is no name of anything.
    """
    host = raw_host.decode("ascii", "replace").lower().removesuffix(".")
    if host == "localhost" or _ADDRESS.fullmatch(host):
        return None
    labels = host.split(".")
    if labels[-1] != "mesh" or len(labels) == 1:
        return _checked(host) if len(labels) == 1 else None
    if len(labels) > 2:
        raise NoName(
            f"{host}: subsets and datacenters in names (canary.payments.mesh) are not served; write {labels[-2]}.mesh"
        )
    return _checked(labels[0])


def _checked(label: str) -> str:
    """Names with other letters arrive here in punycode, as HTTP libraries write them."""
    if not SERVICE_NAME.fullmatch(label):
        raise NoName(
            f"{label!r} is no service name: write a DNS label, letters, digits and dashes inside, at most 63, such as http://payments/"
        )
    return label

"""Which hosts of a URL are mesh services, and which lie outside the mesh.

Rule 1  A single label (`payments`) or a label under `.mesh` (`payments.mesh`) is a mesh service.
Rule 2  `localhost`, addresses, names with other dots and anything with an explicit port lie outside. (httpx drops a
        port that is the scheme's own: `http://payments:80` is `http://payments`.)
Rule 3  What looks like a mesh name and cannot be one is refused with what to write instead, never sent elsewhere.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from meshsdk.config import SERVICE_NAME

if TYPE_CHECKING:
    import httpx

__all__ = ["NoName", "mesh_service"]


class NoName(ValueError):
    """The URL names nothing that can be called; the message says what to write instead."""


_ADDRESS = re.compile(r"[0-9]+|0x[0-9a-f]+|.*:.*")


def mesh_service(url: httpx.URL) -> str | None:
    """The mesh service that `url` (httpx's or httpx2's) names, None for a host outside the mesh.

    Raises:
        NoName: the host is no name of anything, or the scheme is not `http` for a mesh service.
    """
    if url.port is not None:
        return None
    service = _service(url.raw_host)
    if service is not None and url.scheme != "http":
        raise NoName(
            f"{url.scheme}://{service}: encryption between services is the mesh's matter, so write http://{service}; "
            f"for a host outside the mesh write a name with a dot, such as {service}.example.com"
        )
    return service


@lru_cache(maxsize=4096)
def _service(raw_host: bytes) -> str | None:
    host = raw_host.decode("ascii").lower().removesuffix(".")
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
    """Names with other letters arrive here in punycode, as httpx writes them."""
    if not SERVICE_NAME.fullmatch(label):
        raise NoName(
            f"{label!r} is no service name: write a DNS label, letters, digits and dashes inside, at most 63, such as http://payments/"
        )
    return label

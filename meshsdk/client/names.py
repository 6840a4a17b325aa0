"""Which URLs name mesh services, and which lie outside the mesh: see `meshsdk.core.names` for their hosts.

Anything with an explicit port lies outside. (httpx drops a port that is the scheme's own: `http://payments:80` is
`http://payments`.)
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from meshsdk.core.names import NoName, service_of

if TYPE_CHECKING:
    import httpx

__all__ = ["NoName", "destination"]

# What the last URLs name, and no long ones: less than 1 MiB.
_KEPT = 256
_LONGEST = 256


def destination(url: httpx.URL) -> tuple[str | None, bytes]:
    """What `url` (httpx's or httpx2's) names: the mesh service, None for a host outside the mesh, and its `raw_path`.

    A URL encodes each part anew whenever it is asked, through five functions of Python. What it keeps is asked here.

    Raises:
        NoName: the host is no name of anything, or the scheme is not `http` for a mesh service.
    """
    scheme, _, host, port, path, query, _ = url._uri_reference  # noqa: SLF001 - a tuple, in both libraries
    long = len(host) + len(path) + len(query or "") > _LONGEST
    return (_named if long else _remembered)(scheme, host, port, path, query)


def _named(scheme: str, host: str, port: int | None, path: str, query: str | None) -> tuple[str | None, bytes]:
    target = (path or "/") if query is None else f"{path or '/'}?{query}"
    service = None if port is not None else service_of(host.encode("ascii"))
    if service is not None and scheme != "http":
        raise NoName(
            f"{scheme}://{service}: encryption between services is the mesh's matter, so write http://{service}; "
            f"for a host outside the mesh write a name with a dot, such as {service}.example.com"
        )
    return service, target.encode("ascii")


_remembered = lru_cache(_KEPT)(_named)

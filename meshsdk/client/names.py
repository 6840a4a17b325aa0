"""Which URLs name mesh services, and which lie outside the mesh: see `meshsdk.core.names` for their hosts.

Anything with an explicit port lies outside. (httpx drops a port that is the scheme's own: `http://payments:80` is
`http://payments`.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshsdk.core.names import NoName, service_of

if TYPE_CHECKING:
    import httpx

__all__ = ["NoName", "mesh_service"]


def mesh_service(url: httpx.URL) -> str | None:
    """The mesh service that `url` (httpx's or httpx2's) names, None for a host outside the mesh.

    Raises:
        NoName: the host is no name of anything, or the scheme is not `http` for a mesh service.
    """
    if url.port is not None:
        return None
    service = service_of(url.raw_host)
    if service is not None and url.scheme != "http":
        raise NoName(
            f"{url.scheme}://{service}: encryption between services is the mesh's matter, so write http://{service}; "
            f"for a host outside the mesh write a name with a dot, such as {service}.example.com"
        )
    return service

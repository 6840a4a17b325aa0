"""httpx clients that call mesh services by name, and the transports to put under clients of one's own.

`import meshsdk.client` gives `client`, `async_client`, `MeshTransport` and `AsyncMeshTransport`; the errors they raise
are in `meshsdk.client.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from meshsdk.client.transport import AsyncMeshTransport, Clusters, MeshTransport
from meshsdk.errors import ConfigError

__all__ = ["AsyncMeshTransport", "Clusters", "MeshTransport", "async_client", "client"]

# httpx hands these to the transport it makes, and says nothing when it is given one instead.
_TRANSPORT_OPTIONS = ("verify", "cert", "http1", "http2", "limits")


def client(transport: MeshTransport, **options: Any) -> httpx.Client:
    """An `httpx.Client` on the mesh.

    `timeout` is None unless given: the policy bounds a call, and what is given here bounds single operations on top.
    Proxy variables of the environment are not heeded, as a proxy would take the calls to mesh services.

    Args:
        options: any of `httpx.Client`'s, such as `base_url`, `headers` or `event_hooks`.

    Raises:
        ConfigError: an option that would have no effect, or take calls away from the mesh.
    """
    _check(options, "transport")
    return httpx.Client(transport=transport, **{"timeout": None, **options})


def async_client(transport: AsyncMeshTransport, **options: Any) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` on the mesh; as `client`."""
    _check(options, "async_transport")
    return httpx.AsyncClient(transport=transport, **{"timeout": None, **options})


def _check(options: Mapping[str, Any], maker: str) -> None:
    if options.get("proxy") is not None:
        raise ConfigError(
            "proxy=: it would take the calls to mesh services too; "
            f"for hosts outside the mesh write mesh.{maker}(egress=httpx.HTTPTransport(proxy=...))"
        )
    for name in _TRANSPORT_OPTIONS:
        if name in options:
            raise ConfigError(
                f"{name}=: has no effect on a mesh client, whose connections follow the policy; "
                f"for hosts outside the mesh write mesh.{maker}(egress=httpx.HTTPTransport({name}=...))"
            )

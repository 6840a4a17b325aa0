"""meshsdk: a service mesh inside the Python process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshsdk.errors import (
    BadReply,
    BreakerOpen,
    CallError,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    EgressDenied,
    MeshError,
    NoEndpoint,
    Overloaded,
    PolicyError,
    RateLimited,
    Refused,
    UnknownService,
    UpstreamFailed,
)

if TYPE_CHECKING:
    from meshsdk.mesh import Mesh

__all__ = [
    "BadReply",
    "BreakerOpen",
    "CallError",
    "ConfigError",
    "ConnectFailed",
    "ConnectionLost",
    "DeadlineExceeded",
    "EgressDenied",
    "Mesh",
    "MeshError",
    "NoEndpoint",
    "Overloaded",
    "PolicyError",
    "RateLimited",
    "Refused",
    "UnknownService",
    "UpstreamFailed",
]


def __getattr__(name: str) -> Any:
    """Serve `Mesh` when it is asked for: it imports httpx, which the errors do not need."""
    if name == "Mesh":
        from meshsdk.mesh import Mesh

        return Mesh
    raise AttributeError(f"module 'meshsdk' has no attribute {name!r}")

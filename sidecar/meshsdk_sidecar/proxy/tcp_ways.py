"""Which listeners of a file carry bytes that are not HTTP, and what carries them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from meshsdk.wire.security import in_clear
from meshsdk_sidecar.proxy.tcp import Carrier, TcpUpstream
from meshsdk_sidecar.proxy.tcp_inbound import TcpInbound

if TYPE_CHECKING:
    from meshsdk_sidecar.proxy.plane import Parts, Plane

__all__ = ["tcp_carrier"]


def tcp_carrier(plane: Plane, parts: Parts, name: str) -> Carrier | None:
    """What carries the connections of a listener; None for one that speaks HTTP, or is not of the data plane."""
    watch, clock, refused = plane.pools.watch, plane.clock, partial(plane.refused, name)
    service = plane.config.service
    if name == "inbound" and service.protocol == "tcp":
        return TcpInbound(
            service.name,
            plane.app,
            intake=parts.intake,
            context=parts.context,
            strict=lambda: parts.own_plan().tls == "strict",
            watch=watch,
            clock=clock,
            refused=refused,
            crowded=plane.crowded,
        )
    for upstream in plane.config.upstreams:
        if upstream.name == name and upstream.protocol == "tcp":
            return TcpUpstream(
                upstream.service,
                partial(plane.look_up, upstream.service),
                secure=parts.secure or in_clear,
                watch=watch,
                clock=clock,
                refused=refused,
                crowded=plane.crowded,
            )
    return None

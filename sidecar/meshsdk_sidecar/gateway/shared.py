"""A gateway's front as each of several workers has it: certificates are told, limits are those of all together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from meshsdk_sidecar.gateway.certificates import Pair
from meshsdk_sidecar.gateway.clients import Clients
from meshsdk_sidecar.gateway.front import Front
from meshsdk_sidecar.gateway.ledger import Ledger

if TYPE_CHECKING:
    from meshsdk_sidecar.gateway.config import GatewayConfig
    from meshsdk_sidecar.link import Begin
    from meshsdk_sidecar.proxy.plane import Parts

__all__ = ["front_of"]


def front_of(begin: Begin, parts: Parts, pairs: Callable[[], Sequence[Pair]]) -> Front:
    """A worker's front; the `make` of `Begin`."""
    config: GatewayConfig = begin.config
    assert begin.memory is not None  # a gateway's control process makes it
    ledger = Ledger(begin.memory, begin.workers, begin.number)
    return Front(config, parts, pairs, Clients(config.limits, config.trusted_proxies, ledger))

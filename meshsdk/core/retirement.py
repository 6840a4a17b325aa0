"""Which connections must not carry another request: those made under what holds no longer.

Rule 1  An endpoint that is no more, or that takes another kind of TLS now, is not called over a connection it had.
Rule 2  Another TLS mode in the policy, or another certificate of our own, ends every connection of the service: no
        request goes out in clear text, or under an expired certificate, because a connection happened to stand.

What is compared is the service's call before; each owner of connections (a loop, a process) has one of its own.
"""

from __future__ import annotations

from collections.abc import Collection

from meshsdk.core.model import TLS_META, Endpoint, Snapshot
from meshsdk.core.upstream import Upstream

__all__ = ["Retirement"]


class Retirement:
    """Remembers what the connections to each service were made under."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before: dict[str, tuple[Snapshot, str, int]] = {}

    def due(self, upstream: Upstream, generation: int) -> Collection[Endpoint]:
        """The endpoints whose connections are to be let go of now; asked before each call, told once.

        Args:
            upstream: the service's.
            generation: counts our certificates.
        """
        snapshot, mode = upstream.snapshot, upstream.plan.tls
        before = self._before.get(upstream.service)
        if before is not None and before[0] is snapshot and before[1] == mode and before[2] == generation:
            return ()
        self._before[upstream.service] = (snapshot, mode, generation)
        if before is None:
            return ()
        if before[1:] != (mode, generation):
            return before[0].endpoints
        left = set(map(_reached, snapshot.endpoints))
        return [endpoint for endpoint in before[0].endpoints if _reached(endpoint) not in left]


def _reached(endpoint: Endpoint) -> tuple[str, int, str | None]:
    return endpoint.address, endpoint.port, endpoint.meta.get(TLS_META)

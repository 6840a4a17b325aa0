"""`limits`: how much one process may have under way towards the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshsdk.core import plan as core
from meshsdk.policy.kinds import whole
from meshsdk.policy.section import Section, setting

__all__ = ["Limits"]

_count = whole(0, 1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Section):
    """How much one process may have under way towards the service; what is beyond is refused at once (`Overloaded`).

    They hold per process: a server with 8 workers may have 8 times as much under way.
    """

    max_requests: int = setting(
        _count,
        1024,
        """Calls under way at a time; `0` is no limit. 1024 is Envoy's and Kuma's: far above what a healthy process
        has under way, and a stop before memory is.""",
    )
    max_pending: int = setting(
        _count,
        1024,
        "Calls that wait for a connection at a time; `0` is no limit. 1024 as in Envoy.",
    )
    max_connections_per_endpoint: int = setting(
        _count,
        256,
        """Connections to one instance; `0` is no limit. 256 stays below the usual 1024 file descriptors of a process
        with a few destinations, and below what gunicorn or uvicorn accept in their backlog (2048). Changing it closes
        no connection that it allows; calls under way then finish on top of it.""",
    )

    def plan(self) -> core.Limits:
        """As the core reads it."""
        return core.Limits(
            max_requests=self.max_requests,
            max_pending=self.max_pending,
            max_connections_per_endpoint=self.max_connections_per_endpoint,
        )

    @staticmethod
    def dump(limits: core.Limits) -> dict[str, Any]:
        """As a document would write it."""
        return {key: getattr(limits, key) for key in Limits.fields()}

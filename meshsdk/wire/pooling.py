"""How connections are kept, for both colours of the engine."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pooling"]


@dataclass(frozen=True, slots=True)
class Pooling:
    """Bounds on the connections to one endpoint. How many there may be is said by each send's `Bounds`.

    Attributes:
        keep_alive: seconds an idle connection is kept. uvicorn and Node close theirs after 5; below that, we rarely
            write to one that is just closing.
        max_age: seconds after which a connection is not used again, so that what a load balancer or a changed
            certificate decides reaches long-lived connections too.
        max_pending: sends that may wait for a connection; the core's own bound comes first in a meshed call.
    """

    keep_alive: float = 4.0
    max_age: float = 3600.0
    max_pending: int = 1024

"""How connections are kept, for both colours of the engine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

__all__ = ["Pooling"]

# With one CPU, whoever looks for a reply keeps its sender from running.
_ALONE: Final = os.cpu_count() == 1


@dataclass(frozen=True, slots=True)
class Pooling:
    """Bounds on the connections to one endpoint. How many there may be is said by each send's `Bounds`.

    Attributes:
        keep_alive: seconds an idle connection is kept. uvicorn and Node close theirs after 5; below that, we rarely
            write to one that is just closing.
        keep_secured: the same for a connection secured by mutual TLS. The other end is of a mesh and keeps it for
            minutes (ours 75 s, Envoy an hour), and another handshake costs both ends milliseconds of CPU.
        dials: connections to one endpoint that are opened at the same time. More handshakes at once come no sooner:
            each takes its share of the CPU, and under load all of them take longer than they may.
        eager: where so many connections to one endpoint are open, or being opened, a send that finds none free does not
            have another opened at once: it first waits for those, for as long as opening one took the last time.
        max_age: seconds after which a connection is not used again, so that what a load balancer or a changed
            certificate decides reaches long-lived connections too.
        look: seconds a reply is looked for before its caller sleeps, where the endpoint was as quick the last time
            (`wire/looking.py`); about what it costs to sleep, so that looking in vain takes at most twice of that.
        max_pending: sends that may wait for a connection; the core's own bound comes first in a meshed call.
    """

    keep_alive: float = 4.0
    keep_secured: float = 60.0
    dials: int = 16
    eager: int = 32
    max_age: float = 3600.0
    look: float = 0.0 if _ALONE else 150e-6
    max_pending: int = 1024

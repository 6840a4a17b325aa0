"""What is known of one service: its endpoints with their damping, its plan, its cluster. Changes on the loop only.

Rule 1: a cluster exists once both endpoints and a plan are known, from Consul or from the disk.
Rule 2: the disk is used when Consul failed or kept silent for too long, never before it had its chance, and what
        Consul says later wins.
Rule 3: the gate opens when there is a cluster, or when waiting for one has taken long enough.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from math import inf

from meshsdk.core.cluster import Cluster
from meshsdk.core.model import Snapshot
from meshsdk.core.plan import Plan
from meshsdk.discovery.damping import Damping
from meshsdk.discovery.endpoints import read
from meshsdk.discovery.gate import Gate
from meshsdk.discovery.memory import Memory
from meshsdk_registry import Instance

__all__ = ["KnownService"]

_log = logging.getLogger("meshsdk.discovery")


class KnownService:
    """One service in use.

    Args:
        service: its name.
        grace: seconds for `Damping`.
        clock: seconds, monotonic.
        make: makes the cluster once there is a plan.

    Attributes:
        cluster: None until rule 1.
        error: why Consul could not be asked last time; empty while it answers.
        connected: Consul answers the watch.
    """

    def __init__(
        self, service: str, *, grace: float, clock: Callable[[], float], make: Callable[[str, Plan], Cluster]
    ) -> None:
        self.service = service
        self.gate = Gate()
        self.cluster: Cluster | None = None
        self.error = ""
        self.connected = False
        self.refusals: tuple[str, ...] = ()
        self.damping = Damping(grace)
        self._clock = clock
        self._make = make
        self._plan: Plan | None = None
        self._source = ""
        self._problem = ""
        self._memory: Memory | None = None
        self._agreed_at = -inf  # when Consul was last known to agree with what is known here
        self._failed_at = inf

    def __repr__(self) -> str:
        return f"<KnownService {self.service} from {self._source or 'nowhere'}, {self.damping!r}>"

    @property
    def source(self) -> str:
        """`consul`, `disk`, or empty while nothing is known."""
        return self._source

    @property
    def age(self) -> float:
        """Seconds since Consul was last known to agree; 0 while connected, `inf` if it never was."""
        return 0.0 if self.connected else self._clock() - self._agreed_at

    @property
    def failing(self) -> float:
        """Seconds since the first of the failures in a row; 0 while there are none."""
        return max(0.0, self._clock() - self._failed_at)

    # --- what the source says ---------------------------------------------------------------------------

    def recall(self, memory: Memory | None) -> None:
        """Hold ready what the disk remembers (rule 2). No endpoints are nothing to start from."""
        if not self._source and memory is not None and memory.endpoints:
            self._memory = memory

    def listed(self, instances: Iterable[Instance]) -> None:
        """Consul answered."""
        listing = read(instances)
        if listing.refusals != self.refusals:
            for refusal in listing.refusals:
                _log.warning("%s: instance left out: %s", self.service, refusal)
        self.refusals, self._problem = listing.refusals, listing.problem
        self.damping.listed(listing, self._clock())
        self._source, self._memory = "consul", None
        self._connect()
        self._publish()

    def back(self) -> None:
        """Consul answers again; if something changed, that follows."""
        self.damping.back(self._clock())
        self._connect()

    def lost(self, error: str, since: float) -> None:
        """Consul cannot be asked since `since`; what is known stays, and the disk may have its turn."""
        if self.connected:
            self._agreed_at = since
        self._failed_at = min(self._failed_at, since)
        self.connected, self.error = False, error
        self.damping.lost()
        self._fall_back()

    def rest(self) -> None:
        """Nobody asks Consul any more, and nobody calls."""
        if self.connected:
            self._agreed_at = self._clock()
        self.connected = False
        self.damping.lost()

    def expire(self) -> None:
        """Let go of those that were in limbo long enough."""
        if self.damping.expire(self._clock()):
            self._publish()

    def follow(self, plan: Plan) -> None:
        """Obey this plan from the next call on."""
        self._plan = plan
        if self.cluster is not None:
            self.cluster.adopt(plan)
        else:
            self._publish()

    def settle(self, plan: Plan) -> None:
        """Waiting took long enough: take what there is (rule 3)."""
        self._plan = self._plan or plan
        self._fall_back()
        self._publish()
        self.gate.open()

    def forked(self) -> None:
        """In a forked child: locks are new, calls of the parent are not ours, nobody watches yet."""
        opened, self.gate = self.gate.is_open, Gate()
        if opened:
            self.gate.open()
        self.rest()
        if self.cluster is not None:
            self.cluster.forget_in_flight()

    def memory(self) -> Memory:
        """Return the endpoints as another process should find them; documents are added by whoever has them."""
        return Memory(self.damping.endpoints)

    def _connect(self) -> None:
        self.connected, self.error, self._failed_at = True, "", inf

    def _fall_back(self) -> None:
        if self._memory is not None and not self._source:
            memory, self._memory = self._memory, None
            _log.warning(
                "%s: Consul does not answer; %d endpoints remembered on disk are used, %.0f s old",
                self.service, len(memory.endpoints), memory.age,
            )  # fmt: skip
            self.damping.remember(memory.endpoints)
            self._source, self._agreed_at = "disk", self._clock() - memory.age
            self._publish()

    def _publish(self) -> None:
        if not self._source or self._plan is None:
            return
        cluster = self.cluster or self._make(self.service, self._plan)
        cluster.update(Snapshot(self.service, self.damping.endpoints, self._source, self._problem))
        _log.debug("%s: %s", self.service, ", ".join(map(str, self.damping.endpoints)) or "no endpoints")
        self.cluster = cluster
        self.gate.open()

"""Which connections are open to which endpoint; says what is to be closed and closes nothing itself.

Rule 1  A send enters the endpoint's lane, passes its gate (as many at once as connections are allowed), takes the
        newest idle connection or opens one, and leaves by the same steps backwards, whatever happened.
Rule 2  As an idle connection is always used before one is opened, passing the gate bounds the idle ones too.
Rule 3  Another limit makes another gate, and closes no connection that it allows: the lane has an heir, which takes all
        of them over. Sends stay at the gate that they came to, so that those under way may come on top of the limit.
Rule 4  A lane that is retired keeps nothing: a connection of it is closed when its send leaves.
Shared by both colours of an engine. httpcore's own pools are not used: they never again offer a connection whose send
was cancelled between its assignment and its first byte, and each send costs a scan of all connections.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar
from weakref import WeakSet

from meshsdk.core.model import Endpoint

__all__ = ["Connection", "Lane", "Lanes"]


class Connection(Protocol):
    """What is asked of a connection that nobody uses."""

    def has_expired(self) -> bool:
        """It was idle for too long, or the server has closed it."""
        ...


C = TypeVar("C", bound=Connection)
G = TypeVar("G")

# Looked at twice a minute: idle connections the server has closed, and lanes nobody used for a minute.
_SWEEP_EVERY = 30.0
_FORGET_AFTER = 60.0


@dataclass(slots=True, eq=False, weakref_slot=True)
class Lane(Generic[C, G]):
    """One endpoint's connections; changes only under the lock of its `Lanes`.

    Attributes:
        gate: lets as many sends pass as connections are allowed; None lets all pass.
        open: every connection, in use or idle.
        idle: those that nobody uses, the newest last.
        users: sends that have entered and not left.
        heir: the lane that has its connections now, and in whose place it is used.
    """

    endpoint: Endpoint
    limit: int
    gate: G | None
    open: set[C] = field(default_factory=set)
    idle: list[C] = field(default_factory=list)
    users: int = 0
    used_at: float = 0.0
    retired: bool = False
    heir: Lane[C, G] | None = None

    @property
    def above_limit(self) -> bool:
        """More are open than allowed."""
        return 0 < self.limit < len(self.open)


class Lanes(Generic[C, G]):
    """The lanes of one engine (and loop), by the endpoint's address and the service it is called as."""

    def __init__(self, gate: Callable[[int], G]) -> None:
        self._gate = gate
        self._lock = threading.Lock()
        self._lanes: dict[tuple[str, int, str], Lane[C, G]] = {}
        self._retired: WeakSet[Lane[C, G]] = WeakSet()  # those with connections in use
        self._spent: deque[C] = deque()
        self._swept_at = 0.0

    def enter(self, endpoint: Endpoint, limit: int, now: float, service: str = "") -> Lane[C, G]:
        """The lane for a send to `endpoint` of `service`; to be left."""
        key = (endpoint.address, endpoint.port, service)
        with self._lock:
            if now - self._swept_at > _SWEEP_EVERY:
                self._sweep(now)
            lane = self._lanes.get(key)
            if lane is None or lane.limit != limit:
                before = lane
                lane = Lane(endpoint, limit, self._gate(limit) if limit else None)
                if before is not None:
                    self._inherit(lane, before)
                self._lanes[key] = lane
            lane.endpoint = endpoint  # what it says of itself may be new
            lane.users += 1
            lane.used_at = now
        return lane

    def reuse(self, lane: Lane[C, G]) -> C | None:
        """The newest idle connection that is still good."""
        with self._lock:
            if lane.heir is not None:
                lane = _now(lane)
            while lane.idle:
                connection = lane.idle.pop()
                good = False
                try:
                    good = not connection.has_expired()
                finally:
                    if not good:
                        self._spend(lane, connection)
                if good:
                    return connection
        return None

    def used(self, lane: Lane[C, G]) -> int:
        """How many of its connections are in use."""
        with self._lock:
            lane = _now(lane)
            return len(lane.open) - len(lane.idle)

    def opened(self, lane: Lane[C, G], connection: C) -> None:
        """Note a connection that is about to be opened."""
        with self._lock:
            _now(lane).open.add(connection)

    def let_go(self, lane: Lane[C, G], connection: C, good: bool) -> None:
        """A send is done with `connection`, which may carry another one or not."""
        with self._lock:
            if lane.heir is not None:
                lane = _now(lane)
            if good and not (lane.retired or lane.above_limit):
                lane.idle.append(connection)
            else:
                self._spend(lane, connection)

    def leave(self, lane: Lane[C, G]) -> None:
        """A send is over."""
        with self._lock:
            lane.users -= 1

    def retire(self, gone: Collection[Endpoint], service: str = "") -> None:
        """Forget these endpoints of `service`."""
        with self._lock:
            for endpoint in gone:
                self._drop((endpoint.address, endpoint.port, service))

    def drain(self) -> None:
        """Forget every endpoint, and spend every connection, in use or not."""
        with self._lock:
            for key in tuple(self._lanes):
                self._drop(key)
            for lane in tuple(self._retired):
                for connection in tuple(lane.open):
                    self._spend(lane, connection)

    def inherited(self) -> list[C]:
        """In a forked child: every connection. The lock is a new one, as nobody here would ever release the old."""
        self._lock = threading.Lock()
        lanes = (*self._lanes.values(), *self._retired)
        return [connection for lane in lanes for connection in lane.open] + list(self._spent)

    def spent(self) -> C | None:
        """A connection that is now to be closed, None when there is no more; each is returned once."""
        try:
            return self._spent.popleft() if self._spent else None
        except IndexError:  # another thread was quicker
            return None

    def _sweep(self, now: float) -> None:
        self._swept_at = now
        for key, lane in tuple(self._lanes.items()):
            for connection in [idle for idle in lane.idle if idle.has_expired()]:
                lane.idle.remove(connection)
                self._spend(lane, connection)
            if not lane.users and now - lane.used_at > _FORGET_AFTER:
                self._drop(key)

    def _drop(self, key: tuple[str, int, str]) -> None:
        lane = self._lanes.pop(key, None)
        if lane is None:
            return
        lane.retired = True
        while lane.idle:
            self._spend(lane, lane.idle.pop())
        if lane.open:
            self._retired.add(lane)

    def _inherit(self, lane: Lane[C, G], before: Lane[C, G]) -> None:
        """Have `lane` take over from the one `before`; the oldest of what is idle goes where it is too much."""
        lane.open, lane.idle = before.open, before.idle
        before.open, before.idle, before.heir = set(), [], lane
        while lane.idle and lane.above_limit:
            self._spend(lane, lane.idle.pop(0))

    def _spend(self, lane: Lane[C, G], connection: C) -> None:
        lane.open.discard(connection)
        self._spent.append(connection)


def _now(lane: Lane[C, G]) -> Lane[C, G]:
    """The lane that is used in its place."""
    while lane.heir is not None:
        lane = lane.heir
    return lane

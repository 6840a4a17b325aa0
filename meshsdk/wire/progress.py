"""How far one send got, and how long its next wait may be.

An absolute deadline is turned into seconds anew before each wait: a server that drips a byte at a time gets no more
time than one that is silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from meshsdk.core.model import Phase
from meshsdk.wire.engine import Bounds

__all__ = ["Overdue", "Progress"]


class Overdue(Exception):
    """The deadline was over before the wait began."""


class Progress:
    """One send under way; changed by the streams that carry it."""

    __slots__ = ("bounds", "clock", "ended_by_peer", "phase", "reading_body")

    def __init__(self, clock: Callable[[], float], bounds: Bounds) -> None:
        self.clock = clock
        self.bounds = bounds
        self.phase = Phase.NOT_CONNECTED
        self.reading_body = False
        self.ended_by_peer = False

    @property
    def overdue(self) -> bool:
        """Whether the deadline in force is over, as opposed to the bound of one wait."""
        return self._deadline() <= self.clock()

    def for_connect(self) -> float | None:
        """Seconds that connecting may take; None is no bound."""
        return self._left(self.bounds.connect)

    def for_pool(self) -> float | None:
        """Seconds that waiting for a free connection may take."""
        return self._left(self.bounds.pool)

    def for_write(self) -> float | None:
        """Seconds the next write may take. From here on bytes may be on the wire."""
        self.phase = max(self.phase, Phase.NOT_WRITTEN)  # a connection used again was not opened by this send
        seconds = self._left(self.bounds.write)
        self.phase = max(self.phase, Phase.WRITTEN)
        return seconds

    def for_read(self) -> float | None:
        """Seconds the next read may take."""
        return self._left(min(self.bounds.idle, self.bounds.read) if self.reading_body else self.bounds.read)

    def connected(self) -> None:
        """A connection stands; nothing is written to it yet."""
        self.phase = Phase.NOT_WRITTEN

    def received(self, data: bytes) -> None:
        """Note what a read brought; nothing means that the peer closed the connection."""
        if data:
            self.phase = Phase.REPLY_STARTED
        else:
            self.ended_by_peer = True

    def _deadline(self) -> float:
        return self.bounds.body_deadline if self.reading_body else self.bounds.deadline

    def _left(self, most: float) -> float | None:
        deadline = self._deadline()
        if deadline != math.inf:
            most = min(most, deadline - self.clock())
            if most <= 0:
                raise Overdue
        return None if most == math.inf else most

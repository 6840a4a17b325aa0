"""When to ask Consul again: the rules of blocking queries, pure.

Rule 1  The first query has index 0 and returns at once; each later one hands back the index of the last answer.
Rule 2  An index below 1 would not block: 1 is sent instead.
Rule 3  An index that goes back (a restored snapshot, a new server) starts over at 0: nothing newer might ever come.
Rule 4  `wait` is always said and at most 4 minutes. Left out, Consul waits 5 and adds up to a sixteenth, which races
        with proxies' common 5-minute timeout. The client listens for wait + wait/16 + a margin.
Rule 5  After any failure the index starts over at 0: a Consul that restarted with an empty log counts from 1, and
        would hold a query with an old index for its whole wait.
Rule 6  Failures are followed by a pause with full jitter that doubles from 100 ms to 10 s; an answer resets it.
Rule 7  Answers without change spend a token; without one the loop pauses. Changes are free.

Numbers of rule 7: Consul's advice is a burst of 2 and one wake-up in 15 s, meant for consumers that may be late. Ours
may not: a pause delays whatever really changes during it. 16 tokens, 4 more a second: a spurious storm (Consul moves
the index of an absent service with every unrelated write) costs at most 4 queries a second, and a change behind it is
at most 250 ms late. A watch at rest spends one token for each wait, far below 4 a second, so its bucket is full when
a change comes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["MAX_WAIT", "BackOff", "BlockingQuery", "listen_for"]

MAX_WAIT = 240.0
"""Seconds; rule 4."""


def listen_for(wait: float, margin: float) -> float:
    """Seconds after which a query that may block for `wait` seconds is lost; `margin` is for the network."""
    return wait + wait / 16 + margin


@dataclass(slots=True)
class BackOff:
    """Rule 6: growing pauses between failures.

    Args:
        base: seconds; the first pause is at most this, so that a restart of Consul is noticed at once.
        cap: seconds no pause exceeds.
    """

    base: float = 0.1
    cap: float = 10.0
    failures: int = 0

    def failed(self, rng: random.Random) -> float:
        """Count a failure and return the seconds to pause: full jitter, at least 10 ms so as never to spin."""
        ceiling = min(self.cap, self.base * 2 ** min(self.failures, 32))
        self.failures += 1
        return rng.uniform(min(0.01, ceiling), ceiling)

    def succeeded(self) -> None:
        """Start over."""
        self.failures = 0


class BlockingQuery:
    """The state of one watch between its queries.

    Args:
        now: seconds of a monotonic clock; the same clock is given to `answered`.
        burst: answers without change that cost no pause.
        rate: answers without change per second that cost no pause for ever.
    """

    def __init__(self, now: float, *, burst: float = 16, rate: float = 4) -> None:
        self.index = 0
        self.back_off = BackOff()
        self._burst = burst
        self._rate = rate
        self._tokens = burst
        self._filled_at = now

    def __repr__(self) -> str:
        return f"<BlockingQuery index={self.index} tokens={self._tokens:.1f} failures={self.back_off.failures}>"

    def answered(self, index: int, *, changed: bool, now: float) -> float:
        """Take an answer's index and return the seconds to pause before the next query."""
        self.back_off.succeeded()
        index = max(1, index)
        self.index = index if index >= self.index else 0
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if changed:
            return 0.0
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)

    def failed(self, rng: random.Random) -> float:
        """Take a failure and return the seconds to pause before the next query."""
        self.index = 0
        return self.back_off.failed(rng)

"""Whether to look for a reply before sleeping until it comes, by how the last waits for it went.

Who slept finds its caches cold, and all it does next takes twice the time. Where a reply is here within what that
costs, to look for it again and again is cheaper (docs/decisions/0025). How it is looked for is the engine's matter.

Rule 1  One looks where the last wait was over in time, asleep or not. The first one sleeps.
Rule 2  Who looked in vain sleeps for the rest of this wait and in the next ones, each time in more of them.
Rule 3  One looks alone: where others wait for replies too, each look keeps them from working.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LOOKS", "Looking"]

LOOKS: Final = 1024
"""Looks of one wait at most; one takes 0.5 us or more, so that only a clock that stands still lets it come to this."""

# After it was in vain one sleeps so many times, and after each further time twice as many: looking costs a sixteenth of
# what it may take, and nothing where it is always in vain, as where the peer needs the same CPU.
_SLEEPS: Final = 16
_MOST_SLEEPS: Final = 1024


class Looking:
    """What is remembered of the waits for one peer.

    Args:
        longest: how long one looks, seconds; 0 where one is to sleep at once.

    Attributes:
        sleeps: waits that are still to be slept through; the next one begins with a look where there are none.
    """

    __slots__ = ("_next", "longest", "sleeps")

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self.sleeps = 1
        self._next = _SLEEPS

    def found(self) -> None:
        """It came while one looked."""
        self._next = _SLEEPS

    def missed(self) -> None:
        """One looked in vain; the wait goes on asleep."""
        self.sleeps = self._next
        self._next = min(2 * self._next, _MOST_SLEEPS)

    def slept(self, seconds: float) -> None:
        """A wait that was slept through, or its rest, is over; all of it took so long."""
        if self.sleeps > 1:
            self.sleeps -= 1
        else:
            self.sleeps = 0 if seconds <= self.longest else 1

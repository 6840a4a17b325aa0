"""How far a certificate's time has run: which shares of it are to be told, and when the next one is due."""

from __future__ import annotations

from datetime import datetime

from meshsdk.identity.material import Material

__all__ = ["SHARES", "Lifetime"]

SHARES = (0.5, 0.75, 0.9, 1.0)
"""Of the lifetime; the last one is its end."""


class Lifetime:
    """What was told of one certificate's age. Ages that were over when it came are not told, but for its end.

    Args:
        now: with a time zone.
    """

    def __init__(self, material: Material, now: datetime) -> None:
        self.material = material
        self._left = [share for share in SHARES if material.used_up(share) > now or share == 1.0]

    def due(self, now: datetime) -> list[float]:
        """The shares used up since the last time, each told once."""
        over = [share for share in self._left if self.material.used_up(share) <= now]
        del self._left[: len(over)]
        return over

    def next_in(self, now: datetime) -> float | None:
        """Seconds until the next one is due, 0 if it is; None after the end."""
        if not self._left:
            return None
        return max(0.0, (self.material.used_up(self._left[0]) - now).total_seconds())

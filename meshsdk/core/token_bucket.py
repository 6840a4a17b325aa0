"""Token buckets by key: so many requests a second for each client, and a burst of them at once. Pure: time is told.

A bucket is one number here, the time at which it is full again (the "theoretical arrival time" of the generic cell rate
algorithm, ITU-T I.371): taking a token moves it by the time in which one comes back, and there is none left where it
would lie further ahead than the whole bucket takes to fill.

Rule 1: in any `t` seconds, no key is given more than `burst + rate * t` tokens; what was refused takes none.
Rule 2: the table has at most `most` keys. Beyond, the key that asked least recently is forgotten, so it begins anew
        with a full bucket: somebody with very many addresses costs memory of a fixed size, and gains what each of
        those addresses has anyway.
Rule 3: times are whole nanoseconds, so that `burst` tokens are exactly that many.
"""

from __future__ import annotations

from math import ceil

__all__ = ["Bucket", "TokenBuckets"]

_SECOND = 1_000_000_000


class Bucket:
    """What is the same of every bucket.

    Args:
        rate: tokens a second that come back, above 0; at most a thousand million.
        burst: what a bucket holds, at least 1.
    """

    __slots__ = ("_depth", "_interval")

    def __init__(self, rate: float, burst: int) -> None:
        if not 0 < rate <= _SECOND:
            raise ValueError(f"a rate of {rate} tokens a second; write more than 0, and {_SECOND} at most")
        if burst < 1:
            raise ValueError(f"a burst of {burst}; write at least 1")
        self._interval = ceil(_SECOND / rate)
        self._depth = self._interval * burst

    def take(self, full_at: int, now: float) -> tuple[int, float]:
        """Take a token of a bucket.

        Args:
            full_at: nanoseconds at which it is full, on the clock of `now`; 0 for one that is.
            now: seconds on a clock that does not go back.

        Returns:
            When it is full now, and 0.0 where there was a token, else the seconds until there is.
        """
        at = int(now * _SECOND)
        after = max(full_at, at) + self._interval
        lacking = after - at - self._depth
        return (full_at, lacking / _SECOND) if lacking > 0 else (after, 0.0)


class TokenBuckets:
    """One bucket for each key, full at first.

    Args:
        rate, burst: as of `Bucket`.
        most: keys that are remembered, at least 1.
    """

    __slots__ = ("_bucket", "_full_at", "_most")

    def __init__(self, rate: float, burst: int, most: int) -> None:
        if most < 1:
            raise ValueError(f"{most} keys; write at least 1")
        self._bucket = Bucket(rate, burst)
        self._most = most
        self._full_at: dict[str, int] = {}  # in the order in which they asked last

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str, now: float) -> float:
        """Take a token.

        Args:
            now: seconds on a clock that does not go back.

        Returns:
            0.0 where there was one, else the seconds until there is.
        """
        known = self._full_at
        known[key], wait = self._bucket.take(known.pop(key, 0), now)
        if len(known) > self._most:
            del known[next(iter(known))]
        return wait

"""Retry budget: retries may be a share of the requests of the last seconds, plus a small constant rate.

Finagle's numbers and model (`RetryBudget`: 20 % of requests, 10 a second at least, over 10 s): every request deposits
a fraction of a retry that is forgotten after the window; every retry withdraws a whole one. A withdrawal is never
given back: a retry that waits in its pause holds its budget, or a thousand simultaneous failures would all find
the same budget free.

Rule 1: amounts are integers, in millionths of a retry, so that five deposits of 0.2 make exactly one retry.
Rule 2: neither the deposits nor the reserve can go below zero; what a withdrawal took expires where it was taken from.
"""

from __future__ import annotations

from typing import Final

__all__ = ["RetryBudget"]

_RETRY: Final = 1_000_000
_SLOTS: Final = 10


class RetryBudget:
    """The balance of retries, in ten slots of a tenth of the window each.

    Args:
        ratio: retries earned by one request, such as 0.2.
        min_per_second: retries allowed per second whatever the traffic.
        window: seconds a request counts, above 0.
        now: the current time.
    """

    __slots__ = ("_borrowed", "_debt", "_deposits", "_earned", "_index", "_reserve", "_share", "_slot_end", "_width")

    def __init__(self, ratio: float, min_per_second: float, window: float, now: float) -> None:
        if not window > 0:
            raise ValueError(f"the budget's window is {window} s; write more than 0")
        self._share = round(ratio * _RETRY)
        self._reserve = round(min_per_second * window * _RETRY)
        self._width = window / _SLOTS
        self._slot_end = now + self._width
        self._index = 0
        self._deposits = [0] * _SLOTS
        self._borrowed = [0] * _SLOTS
        self._earned = 0  # the sum of _deposits
        self._debt = 0  # the sum of _borrowed

    def deposit(self, now: float) -> None:
        """Count one request."""
        if now >= self._slot_end:
            self._advance(now)
        self._deposits[self._index] += self._share
        self._earned += self._share

    def withdraw(self, now: float) -> bool:
        """Take one retry, from what requests earned first and then from the reserve; False if there is none."""
        if now >= self._slot_end:
            self._advance(now)
        from_earned = min(self._earned, _RETRY)
        from_reserve = _RETRY - from_earned
        if self._debt + from_reserve > self._reserve:
            return False
        self._spend(from_earned)
        self._borrowed[self._index] += from_reserve
        self._debt += from_reserve
        return True

    def balance(self, now: float) -> float:
        """How many retries could be made now."""
        if now >= self._slot_end:
            self._advance(now)
        return (self._earned + self._reserve - self._debt) / _RETRY

    def _spend(self, amount: int) -> None:
        """Take `amount` from the oldest deposits first: they would be the first to expire."""
        self._earned -= amount
        for step in range(1, _SLOTS + 1):
            slot = (self._index + step) % _SLOTS
            taken = min(amount, self._deposits[slot])
            self._deposits[slot] -= taken
            amount -= taken
            if not amount:
                return

    def _advance(self, now: float) -> None:
        """Open the slot `now` belongs to and forget those that left the window."""
        steps = int((now - self._slot_end) / self._width) + 1
        self._slot_end += steps * self._width
        for _ in range(min(steps, _SLOTS)):
            self._index = (self._index + 1) % _SLOTS
            self._earned -= self._deposits[self._index]
            self._debt -= self._borrowed[self._index]
            self._deposits[self._index] = self._borrowed[self._index] = 0

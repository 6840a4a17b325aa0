"""How many threads may be somewhere at once; who comes when it is full waits in line.

`threading.Semaphore` does that in nine functions of Python where nobody has to wait, and whoever gives a pass back may
take it again before the one who waits has woken up. Here a pass is handed to the first in line.
"""

from __future__ import annotations

from collections import deque
from threading import TIMEOUT_MAX, Lock
from typing import Any

__all__ = ["Gate"]


class Gate:
    """Lets so many pass at once.

    Args:
        limit: how many.
    """

    __slots__ = ("_free", "_lock", "_waiting")

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._lock = Lock()
        self._waiting: deque[Any] = deque()  # a lock for each, which opens when it is handed a pass

    def passes(self) -> bool:
        """Pass, if that can be done at once."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
        return False

    def waits(self, seconds: float) -> bool:
        """Pass within so many seconds, inf without a bound; False where nobody gave a pass back in time."""
        turn = Lock()
        turn.acquire()
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            self._waiting.append(turn)
        handed = False
        try:
            handed = turn.acquire(timeout=min(max(seconds, 0.0), TIMEOUT_MAX))
        except BaseException:  # a signal's handler raised
            if not self._left(turn):
                self.give_back()
            raise
        return handed or not self._left(turn)

    def give_back(self) -> None:
        """Somebody who passed is done: the first in line passes, if there is one."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1

    def _left(self, turn: Any) -> bool:
        """Wait no longer; False where a pass was handed over meanwhile."""
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return True
        return False

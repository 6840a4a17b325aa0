"""The dev agent's log index: one number that grows with each change, and who wants to know."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Journal"]


class Journal:
    """Counts changes as Consul's Raft log does. `watcher` is called after each."""

    def __init__(self, watcher: Callable[[], None] = lambda: None) -> None:
        self.index = 0
        self.watcher = watcher

    def advance(self) -> int:
        """Note a change and return its index."""
        self.index += 1
        self.watcher()
        return self.index

"""Engines in a process that forks: two processes on one connection would read each other's replies."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["Inherited", "forget_in_children"]


class Inherited(Protocol):
    """Something that a forked child has from its parent, and must not use as it is."""

    def forget_inherited(self) -> None:
        """Called in the child: let go of what is the parent's, without a byte, and without any lock of its."""
        ...


_all: WeakSet[Inherited] = WeakSet()


def forget_in_children(thing: Inherited) -> None:
    """Have `thing.forget_inherited` called in every child that is forked while something holds `thing`."""
    _all.add(thing)


def _after_fork() -> None:
    for thing in tuple(_all):
        thing.forget_inherited()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

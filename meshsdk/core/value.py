"""Values: what is known by its fields, and is copied and pickled by them, compiled or not."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

__all__ = ["Value"]


class Value:
    """The base of a dataclass that is made anew from its fields where it is copied or sent to another process.

    Compiled (decision 15), a dataclass that is frozen or has an `__init__` of its own can be neither: mypyc makes the
    copy empty and sets its fields then, which the one forbids and the other has no room for.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """For `copy` and `pickle`: what it found out for itself is found out again."""
        return type(self), tuple(getattr(self, each.name) for each in fields(cast(Any, self)) if each.init)

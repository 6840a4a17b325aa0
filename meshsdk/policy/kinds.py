"""What one value of a document may be: each kind reads it, or says what to write instead, and knows its JSON schema."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Kind", "Read", "choice", "flag", "like", "passing", "percent", "quantity", "share", "text", "whole"]

_NEAR = 0.7  # a slip or two in a word; at difflib's own 0.6, auto is near to vault

Read = Callable[[Any], Any]
"""What stands in a document to the value that is meant; ValueError says what to write instead."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value.

    Attributes:
        read: takes plain values of YAML and JSON, None excepted.
        schema: of what `read` takes, as far as JSON Schema can say it.
    """

    read: Read
    schema: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, value: Any) -> Any:
        """Read a value.

        Raises:
            ValueError: what to write instead.
        """
        return self.read(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("write true or false")  # noqa: TRY004 - one error for whoever reads the document
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("write text, in quotes where it looks like a number")  # noqa: TRY004 - as above
    return value


flag = Kind(_flag, {"type": "boolean"})
"""True or false."""

text = Kind(_text, {"type": "string"})
"""Any text."""


def passing(check: Callable[[str], object], pattern: str) -> Kind:
    """Text that a check finds good.

    Args:
        check: raises ValueError that says what to write instead.
        pattern: for the schema; it may take more than the check.
    """

    def read(value: Any) -> str:
        check(found := _text(value))
        return found

    return Kind(read, {"type": "string", "pattern": pattern})


def like(pattern: re.Pattern[str], advice: str) -> Kind:
    """Text of a form."""

    def check(value: str) -> None:
        if not pattern.fullmatch(value):
            raise ValueError(advice)

    return passing(check, f"^({pattern.pattern})$")


def choice(*words: str) -> Kind:
    """One of a few words; the nearest is named where it is another."""
    advice = f"write {', '.join(words[:-1])} or {words[-1]}"

    def read(value: Any) -> str:
        if isinstance(value, str) and value in words:
            return value
        near = difflib.get_close_matches(str(value).lower().replace("_", "-"), words, n=1, cutoff=_NEAR)
        raise ValueError(f"{advice}; did you mean {near[0]}?" if near else advice)

    return Kind(read, {"type": "string", "enum": list(words)})


def whole(least: int, most: int) -> Kind:
    """A whole number within bounds."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("write a whole number")  # noqa: TRY004 - as above
        _within(value, least, most)
        return value

    return Kind(read, {"type": "integer", "minimum": least, "maximum": most})


def quantity(least: float, most: float) -> Kind:
    """A number within bounds."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            raise ValueError("write a number")
        _within(value, least, most)
        return float(value)

    return Kind(read, {"type": "number", "minimum": least, "maximum": most})


percent = quantity(0, 100)
"""A number from 0 to 100."""

share = quantity(0, 1)
"""A number from 0 to 1."""


def _is_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)  # a whole number may be too long for a float


def _within(value: float, least: float, most: float) -> None:
    if value < least:
        raise ValueError(f"write {least:.12g} or more")
    if value > most:
        raise ValueError(f"write {most:.12g} or less")

"""Durations as people write them: one number with one unit, such as `25ms`, `1.5s`, `5m`, `1h`."""

from __future__ import annotations

import re
from typing import Any

from meshsdk.policy.kinds import Kind

__all__ = ["duration", "duration_text", "period", "seconds"]

# Nine digits keep every value finite and exact in a float, and are 30 years in seconds.
_FORM = r"[0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h)"
_DURATION = re.compile(r"(?P<number>[0-9]{1,9}(\.[0-9]{1,9})?)(?P<unit>ms|s|m|h)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def seconds(value: object) -> float:
    """The seconds of a duration: text with one unit, or 0.

    Raises:
        ValueError: what to write instead.
    """
    if value == "0" or (value == 0 and not isinstance(value, bool)):
        return 0.0
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(_advice(value))
    return float(match["number"]) * _UNITS[match["unit"]]


def duration_text(value: float) -> str:
    """Seconds as the shortest text `seconds` reads back: `5s`, `25ms`, `1.5s`, `5m`, `1h`, `0s`."""
    if value == 0:
        return "0s"
    for unit, size in _UNITS.items():
        if value >= size and (unit in {"s", "ms"} or round(value % size, 9) == 0):
            return f"{value / size:.9g}{unit}"
    return f"{value * 1000:.9f}".rstrip("0") + "ms"


def _advice(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9:
        return f"a number without a unit; write {value}s"
    return "not a duration; write a number with one unit (ms, s, m or h), such as 250ms, 1.5s or 5m"


def _above_zero(value: object) -> float:
    if not (found := seconds(value)):
        raise ValueError("must be longer than 0; write a duration such as 5s")
    return found


def _schema(form: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{form}$", "examples": ["250ms", "1.5s", "5m"]}


period = Kind(_above_zero, _schema(rf"(?=[^a-z]*[1-9]){_FORM}"))
"""Above zero; seconds once read."""

duration = Kind(seconds, {"anyOf": [_schema(rf"(0|{_FORM})"), {"const": 0}]})
"""`0` (or `0s`) where the field says what that means; seconds once read."""

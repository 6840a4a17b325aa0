"""Retry-After (RFC 9110, 10.2.3): seconds, or a date that is read against the reply's own Date."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

__all__ = ["retry_after"]


def retry_after(headers: Sequence[tuple[bytes, bytes]]) -> float | None:
    """Seconds to wait, at least 0; None where the header is absent or not readable.

    A date counts from the reply's Date header, so that a difference between the two clocks does not matter; without
    that header the date cannot be read.
    """
    value = _first(headers, b"retry-after")
    if value is None:
        return None
    if value.isdigit():
        return float(value)
    until, sent = _moment(value), _moment(_first(headers, b"date"))
    if until is None or sent is None:
        return None
    return max((until - sent).total_seconds(), 0.0)


def _first(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    return next((value.strip() for key, value in headers if key.lower() == name), None)


def _moment(value: bytes | None) -> datetime | None:
    if value is None:
        return None
    from email.utils import parsedate_to_datetime  # 0.4 MB, and hardly anybody sends dates

    try:
        moment = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, TypeError, IndexError):
        return None
    return moment if moment.tzinfo else None

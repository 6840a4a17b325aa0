"""Bounded words for labels: what a client sends must never become an unbounded number of series."""

from __future__ import annotations

from typing import Final

__all__ = ["known_method"]

# The methods the HTTP conventions of OpenTelemetry know; anything else is `_OTHER`.
METHODS: Final = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"))


def known_method(method: str) -> str:
    """The method itself where it is a known one (they are case-sensitive, RFC 9110, 9.1), else `_OTHER`."""
    return method if method in METHODS else "_OTHER"

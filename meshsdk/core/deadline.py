"""The time left for a call as headers say it: Envoy's milliseconds and gRPC's `grpc-timeout`.

Rule 1: what is written never promises more time than there is (rounded down), and never none (at least one unit).
Rule 2: what cannot be read is a ValueError; whoever serves the request decides what to do without a deadline.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "EXPECTED_TIMEOUT",
    "GRPC_TIMEOUT",
    "envoy_timeout",
    "grpc_timeout",
    "parse_envoy_timeout",
    "parse_grpc_timeout",
]

EXPECTED_TIMEOUT: Final = b"x-envoy-expected-rq-timeout-ms"
GRPC_TIMEOUT: Final = b"grpc-timeout"

_MILLISECONDS: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
# gRPC over HTTP/2: a positive whole number of at most eight digits, and a unit.
_GRPC: Final = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
_UNITS: Final = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "S": 1.0, "M": 60.0, "H": 3600.0}


def envoy_timeout(seconds: float) -> bytes:
    """Write the time left, in seconds, as whole milliseconds."""
    return b"%d" % max(1, int(seconds * 1000))


def parse_envoy_timeout(value: bytes | str) -> float:
    """Read whole milliseconds into seconds; raises ValueError for anything else, and for 0, which Envoy never sends."""
    text = _text(value)
    if not _MILLISECONDS.fullmatch(text) or int(text) == 0:
        raise ValueError(f"{text[:40]!r} is not a number of milliseconds; write a whole number from 1 up, such as 1500")
    return int(text) / 1000


def grpc_timeout(seconds: float) -> bytes:
    """Write the time left, in seconds, in the finest unit whose number fits eight digits."""
    for unit, size in _UNITS.items():
        amount = int(seconds / size)
        if amount < 100_000_000:
            return b"%d%s" % (max(1, amount), unit.encode())
    return b"99999999H"


def parse_grpc_timeout(value: bytes | str) -> float:
    """Read a `grpc-timeout` into seconds; raises ValueError for anything gRPC's wire format does not allow.

    Zero is read as "already over", as grpc-java and grpc-go do, although the format asks for a positive number.
    """
    text = _text(value)
    match = _GRPC.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text[:40]!r} is not a grpc-timeout; write up to 8 digits and one of H M S m u n, such as 1500m"
        )
    return int(match[1]) * _UNITS[match[2]]


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value

"""The caller's deadline, read from request headers; pure.

Two spellings are in use: Envoy's `x-envoy-expected-rq-timeout-ms` (milliseconds, digits only) and gRPC's
`grpc-timeout` (at most eight digits and a unit, gRPC over HTTP/2). Both are relative: they count from the arrival of
the request. Where both came, the earlier one holds. A value nobody could mean is not an error of the caller's request:
it is reported and the request is served without that bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["ENVOY_HEADER", "GRPC_HEADER", "Timeout", "read_timeout"]

ENVOY_HEADER: Final = b"x-envoy-expected-rq-timeout-ms"
GRPC_HEADER: Final = b"grpc-timeout"

# Ten digits of milliseconds are 115 days: longer is not a timeout but a mistake.
_DIGITS: Final = 10
_GRPC: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


@dataclass(slots=True, init=False)
class Timeout:
    """What the headers said.

    Attributes:
        seconds: the time the caller gives, None without a usable header.
        header: the header it is from; empty without one.
        junk: `header: value` of each one that could not be read.
    """

    seconds: float | None
    header: str
    junk: list[str]

    def __init__(self) -> None:
        self.seconds = None
        self.header = ""
        self.junk = []


def read_timeout(values: Iterable[tuple[bytes, bytes]]) -> Timeout:
    """Read the timeout headers of a request.

    Args:
        values: header names in small letters with their values; only the two names above may be among them.
    """
    timeout = Timeout()
    for name, value in values:
        seconds = _milliseconds(value) if name == ENVOY_HEADER else _grpc(value)
        if seconds is None:
            timeout.junk.append(f"{name.decode()}: {value[:40]!r}")
        elif timeout.seconds is None or seconds < timeout.seconds:
            timeout.seconds, timeout.header = seconds, name.decode()
    return timeout


def _milliseconds(value: bytes) -> float | None:
    digits = value.strip()
    return int(digits) / 1000 if digits.isdigit() and len(digits) <= _DIGITS else None


def _grpc(value: bytes) -> float | None:
    match = _GRPC.fullmatch(value.strip())
    return int(match[1]) * _UNITS[match[2]] if match else None

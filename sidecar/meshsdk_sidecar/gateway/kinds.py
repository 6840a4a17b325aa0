"""What one value of the gateway's file may be, beside what the sidecar's file knows."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

from meshsdk.core.paths import check_path
from meshsdk.policy.durations import seconds
from meshsdk_sidecar.kinds import Read, address, text

__all__ = [
    "Network",
    "addresses",
    "field_names",
    "field_value",
    "host",
    "hosts",
    "long_period",
    "networks",
    "optional",
    "path",
    "rate",
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_LONG = re.compile(r"([0-9]{1,4})(d|y)")
_DAY = 86_400
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")


def addresses(value: Any) -> tuple[str, ...]:
    """An address of this machine, or several: that of IPv4 and that of IPv6 are two."""
    if not isinstance(value, list):
        return (address(value),)
    if not value:
        raise ValueError('write an address, or several, such as ["0.0.0.0", "::"]')
    return tuple(address(item) for item in value)


def host(value: Any) -> str:
    """A host name in small letters, also `*.example.com` for one label more, or `*` for any."""
    found = text(value).lower().removesuffix(".")
    if found != "*" and (len(found) > 253 or not _HOST.fullmatch(found)):
        raise ValueError("write a host name such as shop.example.com, *.example.com, or * for any; no port, no path")
    return found


def hosts(value: Any) -> tuple[str, ...]:
    """Host names of a certificate."""
    if not isinstance(value, list) or not value:
        raise ValueError(
            "write a list of host names, such as [shop.example.com]; leave it out to take the certificate's"
        )
    found = tuple(host(item) for item in value)
    if "*" in found:
        raise ValueError("no certificate is for every host; write their names")
    return found


def path(value: Any) -> str:
    """A path in its normal form, with no `*` in it."""
    found = text(value)
    if "*" in found:
        raise ValueError("paths are compared as they are; write prefix with a path such as /api, without *")
    check_path(found)
    return found


def networks(value: Any) -> tuple[Network, ...]:
    """A list of networks or addresses."""
    if not isinstance(value, list) or not value:
        raise ValueError("write a list of networks, such as [10.0.0.0/8]")
    found = []
    for item in value:
        try:
            found.append(ipaddress.ip_network(item if isinstance(item, str) else ""))
        except ValueError:
            raise ValueError(f"{item!r} is no network; write one such as 10.0.0.0/8, host bits zero") from None
    return tuple(found)


def rate(value: Any) -> float:
    """Requests a second."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.001 <= value <= 1_000_000:
        raise ValueError("write requests a second as a number, such as 20 or 0.5; at most 1000000")
    return float(value)


def long_period(value: Any) -> float:
    """Seconds above 0; days and years too."""
    match = _LONG.fullmatch(value) if isinstance(value, str) else None
    found = int(match[1]) * _DAY * (365 if match[2] == "y" else 1) if match else seconds(value)
    if not found:
        raise ValueError("must be longer than 0; write a duration such as 1y, 180d or 5m, or off")
    return found


def field_value(value: Any) -> str:
    """A header field's value."""
    if not _VALUE.fullmatch(text(value)):
        raise ValueError("write a header's value in printable ASCII, on one line")
    return str(value)


def field_names(value: Any) -> tuple[str, ...]:
    """Names of header fields, in small letters."""
    if not isinstance(value, list) or not all(isinstance(item, str) and _NAME.fullmatch(item) for item in value):
        raise ValueError("write a list of header names, such as [server]; [] for none")
    return tuple(item.lower() for item in value)


def optional(read: Read) -> Callable[[Any], Any]:
    """`off`, which is the empty text or 0 of its kind to whoever asks, or what `read` takes."""

    def found(value: Any) -> Any:
        if value == "off":
            return False
        try:
            return read(value)
        except ValueError as refusal:
            raise ValueError(f"{refusal}; off turns it off") from None

    return found

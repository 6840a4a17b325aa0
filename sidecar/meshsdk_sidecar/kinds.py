"""What one value of the sidecar's file may be: each reader returns the value, or says what to write instead."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from meshsdk.config import SERVICE_NAME
from meshsdk.policy.durations import duration, period
from meshsdk.policy.kinds import Read, choice, flag

__all__ = [
    "Read",
    "address",
    "choice",
    "consul_url",
    "duration",
    "file",
    "flag",
    "is_loopback",
    "is_wildcard",
    "listed",
    "local",
    "meta",
    "page",
    "period",
    "port",
    "reached",
    "service",
    "size",
    "socket_path",
    "text",
    "whole",
]

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_SIZE = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB)?")
_UNITS = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_META_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_WILDCARDS = frozenset({"0.0.0.0", "::"})

META_PAIRS = 50
"""Of a registration's meta that are the file's; Consul takes 64, and some are the sidecar's own."""

META_VALUE = 512
"""Bytes of a value in a registration's meta."""

SOCKET_PATH = 107
"""Bytes of a unix socket's path: `sun_path` of Linux's unix(7) holds 108 with the zero at its end."""


def text(value: Any) -> str:
    """Any text but an empty one."""
    if not isinstance(value, str) or not value:
        raise ValueError("write text, in quotes where it looks like a number")
    return value


def service(value: Any) -> str:
    """A service's name."""
    if not SERVICE_NAME.fullmatch(text(value)):
        raise ValueError("write a DNS label: small letters, digits and dashes, such as legacy")
    return str(value)


def address(value: Any) -> str:
    """An IP address or a host name, without a port."""
    try:
        return str(ipaddress.ip_address(text(value)))
    except ValueError:
        if not isinstance(value, str) or not _HOST.fullmatch(value) or re.fullmatch(r"[\d.]+", value):
            raise ValueError("write an IP address or a host name, the port apart") from None
    return value


def reached(value: Any) -> str:
    """An address that somebody can connect to."""
    found = address(value)
    if is_wildcard(found):
        raise ValueError("that is where a server listens; write the address it is reached at")
    return found


def local(value: Any) -> str:
    """An address that only this machine reaches."""
    found = address(value)
    if not is_loopback(found):
        raise ValueError(
            "whoever reaches these pages may read and change everything; write 127.0.0.1, or `socket:` with a path; "
            "`probes:` opens readiness and metrics to others"
        )
    return found


def is_loopback(found: str) -> bool:
    """Whether an address is this machine's own only."""
    return found == "localhost" or (_is_ip(found) and ipaddress.ip_address(found).is_loopback)


def is_wildcard(found: str) -> bool:
    """Whether an address stands for all of the machine's."""
    return found in _WILDCARDS


def _is_ip(found: str) -> bool:
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return False
    return True


def whole(least: int, most: int) -> Read:
    """A whole number within bounds."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("write a whole number")  # noqa: TRY004 - one error for whoever reads the file
        if not least <= value <= most:
            raise ValueError(f"write {least} to {most}")
        return value

    return read


port: Read = whole(1, 65535)
"""A TCP port."""


def size(value: Any) -> int:
    """Bytes; a number, or one with KiB, MiB or GiB."""
    match = None if isinstance(value, bool | float) else _SIZE.fullmatch(str(value))
    if match is None or not int(match[1]):
        raise ValueError("not a size; write bytes such as 65536, or a number with a unit, such as 64KiB or 1MiB")
    return int(match[1]) * _UNITS[match[2]]


def page(value: Any) -> str:
    """The path of a page, as a request's target."""
    if not isinstance(value, str) or not re.fullmatch(r"/[!-~]*", value):
        raise ValueError("write a path that begins with /, such as /healthz, other characters percent-encoded")
    return value


def file(value: Any) -> str:
    """The path of a file."""
    return text(value)


def socket_path(value: Any) -> str:
    """The path of a unix socket."""
    found = text(value)
    if not found.startswith("/") or "\0" in found:
        raise ValueError("write an absolute path, such as /run/legacy/app.sock")
    if len(found.encode()) > SOCKET_PATH:
        raise ValueError(f"longer than {SOCKET_PATH} bytes, which no unix socket's path may be; write a shorter one")
    return found


def consul_url(value: Any) -> str:
    """Where Consul is."""
    from meshsdk_registry.address import ConsulAddress  # the reader of the file needs nothing else of the registry

    ConsulAddress.parse(text(value))
    return str(value)


def listed(value: Any) -> tuple[str, ...]:
    """A list of words."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError("write a list of words, such as [blue, eu]")
    return tuple(value)


def meta(value: Any) -> dict[str, str]:
    """Text by text, as Consul takes it (`structs.ValidateServiceMetadata`): it would refuse the whole registration."""
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError('write keys with text, such as {track: canary, shard: "7"}')
    if len(value) > META_PAIRS:
        raise ValueError(f"more than {META_PAIRS}, which Consul does not take; write fewer")
    for key, item in value.items():
        if not _META_KEY.fullmatch(key) or key.startswith("consul-"):
            raise ValueError(
                f"{key!r} is no key for Consul; write 1 to 128 letters, digits, dashes and underscores, "
                "without consul- in front"
            )
        if len(item.encode()) > META_VALUE:
            raise ValueError(f"{key}: longer than {META_VALUE} bytes, which Consul does not take; write a shorter text")
    return dict(value)

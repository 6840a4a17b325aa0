"""Where callers reach this process, and what its instance is called in Consul."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

__all__ = ["instance_id", "loopback", "own_address"]


def own_address(consul_url: str) -> str:
    """The address by which this host reaches Consul; empty where Consul knows better.

    An agent on this machine (loopback, `localhost`, a unix socket) knows the address that the machine has for others,
    its advertise address, and Consul uses it for a service that is registered without one. For an agent elsewhere the
    routing table is asked, by connecting a datagram socket: that sends nothing.

    Args:
        consul_url: `http://…`, `https://…` or `unix:///path`.
    """
    parts = urlsplit(consul_url)
    host = parts.hostname
    if parts.scheme == "unix" or host is None or host == "localhost":
        return ""
    try:
        family, _, _, _, target = socket.getaddrinfo(host, parts.port or 8500, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            address: str = probe.getsockname()[0]
    except OSError:
        return ""
    return "" if ipaddress.ip_address(address.partition("%")[0]).is_loopback else address


def loopback(address: str) -> str:
    """Where to listen for who is told `address`, if that is this machine alone; empty for any other, and for names.

    `localhost` is no name: it never means another machine (RFC 6761, 6.3).
    """
    if address.rstrip(".").lower() == "localhost":
        return "127.0.0.1"
    try:
        return address if ipaddress.ip_address(address).is_loopback else ""
    except ValueError:
        return ""


def instance_id(service: str, port: int, host: str | None = None) -> str:
    """The id all workers behind one port share: `<service>-<host>-<port>`.

    Args:
        host: this machine's name; the system's where None.
    """
    name = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname() if host is None else host).strip("-")
    return f"{service}-{name or 'host'}-{port}"

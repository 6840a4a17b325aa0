"""The command line's door to Consul: one client from the environment's settings, and names checked before they go."""

from __future__ import annotations

import re

from meshsdk.config import Settings, load
from meshsdk.errors import ConfigError
from meshsdk.mesh import open_consul
from meshsdk_registry import Consul, check_service

__all__ = ["connect", "consul_at", "destination", "lookup"]

# A host name's label as the client takes it: RFC 1035, 2.3.1, and the underscore that Consul takes too.
_DESTINATION = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def connect() -> Consul:
    """Open a client by CONSUL_* and MESH_* variables; use it as an async context manager.

    Raises:
        ConfigError: a variable is wrong.
    """
    return consul_at(load({"service": "meshsdk-cli"}))


def consul_at(settings: Settings) -> Consul:
    """Open the client that the settings describe.

    Raises:
        ConfigError: the address is none, or token and TLS files contradict each other.
    """
    try:
        return open_consul(settings)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"CONSUL_* variables: {error}") from error


def destination(name: str, among: tuple[str, ...] = ()) -> str:
    """Return the name of a service that processes can call, or one of `among`.

    Raises:
        ConfigError: it is neither; says what to write.
    """
    if name not in among and not _DESTINATION.fullmatch(name):
        other = "".join(f", or {word}" for word in among)
        raise ConfigError(
            f"{name!r} is no service's name: write small letters, digits and dashes, such as 'payments'{other}"
        )
    return name


def lookup(name: str) -> str:
    """Return the name if Consul can be asked for it; services of others may hold dots and capitals.

    Raises:
        ConfigError: it cannot be any service's name.
    """
    try:
        return check_service(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error

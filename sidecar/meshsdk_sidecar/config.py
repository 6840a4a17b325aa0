"""The sidecar's file: what it may say, checked whole, every mistake with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meshsdk.config import SERVICE_NAME
from meshsdk.errors import ConfigError

__all__ = ["Admin", "Config", "ConsulSection", "Outbound", "Service", "load"]

Port = Annotated[int, Field(ge=1, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Service(_Section):
    """The service beside which the sidecar runs; without a port it only calls others and is not registered."""

    name: Annotated[str, Field(pattern=f"^{SERVICE_NAME.pattern}$")]
    address: str = "127.0.0.1"
    port: Port | None = None
    protocol: Literal["http"] = "http"


class Outbound(_Section):
    """Where the service sends its calls; the Host header, or an absolute URL, names the service."""

    address: str = "127.0.0.1"
    port: Port = 15001


class Admin(_Section):
    """Readiness and metrics; keep it on loopback."""

    address: str = "127.0.0.1"
    port: Port = 15000


class ConsulSection(_Section):
    """Where Consul is; what is left out comes from CONSUL_* variables."""

    url: str | None = None
    token_file: str | None = None
    datacenter: str | None = None


class Config(_Section):
    """The whole file. Everything but `service.name` may be left out."""

    service: Service
    outbound: Outbound = Outbound()
    admin: Admin = Admin()
    consul: ConsulSection = ConsulSection()


LATER = frozenset({"inbound", "upstreams"})


def load(file: Path) -> Config:
    """Read the file.

    Raises:
        ConfigError: it cannot be read, is not YAML, or has mistakes; all of them are listed.
    """
    try:
        data = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: write a mapping that starts with `service: {{name: …}}`")
    early = [f"{key}: not served by this version of the sidecar; remove it" for key in data if key in LATER]
    try:
        config = Config.model_validate({key: value for key, value in data.items() if key not in LATER})
    except ValidationError as error:
        early += [_line(mistake) for mistake in error.errors()]
    else:
        if not early:
            return config
    raise ConfigError(f"{file}: " + "; ".join(early))


def _line(mistake: object) -> str:
    assert isinstance(mistake, dict)
    path = ".".join(str(part) for part in mistake["loc"])
    given = "" if mistake["type"] in {"missing", "extra_forbidden"} else f" (found {mistake['input']!r})"
    return f"{path}: {mistake['msg'].lower()}{given}"

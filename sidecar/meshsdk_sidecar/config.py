"""The sidecar's file: what it may say, checked whole, every mistake with its path, its line and what to write."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from meshsdk.config import SERVICE_NAME
from meshsdk.errors import ConfigError, PolicyError
from meshsdk.policy import reading
from meshsdk_registry import ConsulAddress

__all__ = ["Admin", "Config", "ConsulSection", "Outbound", "Service", "load"]

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def _name(text: str) -> str:
    if not SERVICE_NAME.fullmatch(text):
        raise ValueError("write a DNS label: small letters, digits and dashes, such as legacy")
    return text


def _address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not _HOST.fullmatch(text) or re.fullmatch(r"[\d.]+", text):
            raise ValueError("write an IP address or a host name, the port apart") from None
    return text


def _reached(text: str) -> str:
    if text in {"0.0.0.0", "::"}:
        raise ValueError("that is where a server listens; write the address callers reach it at")
    return _address(text)


def _consul(text: str) -> str:
    ConsulAddress.parse(text)
    return text


Port = Annotated[int, Field(ge=1, le=65535)]
Address = Annotated[str, AfterValidator(_address)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Service(_Section):
    """The service beside which the sidecar runs; without a port it only calls others and is not registered."""

    name: Annotated[str, AfterValidator(_name)]
    address: Annotated[str, AfterValidator(_reached)] = "127.0.0.1"
    port: Port | None = None
    protocol: Literal["http"] = "http"


class Outbound(_Section):
    """Where the service sends its calls; the Host header, or an absolute URL, names the service."""

    address: Address = "127.0.0.1"
    port: Port = 15001


class Admin(_Section):
    """Readiness and metrics; keep it on loopback."""

    address: Address = "127.0.0.1"
    port: Port = 15000


class ConsulSection(_Section):
    """Where Consul is; what is left out comes from CONSUL_* variables."""

    url: Annotated[str, AfterValidator(_consul)] | None = None
    token_file: str | None = None
    datacenter: str | None = None


class Config(_Section):
    """The whole file. Everything but `service.name` may be left out."""

    service: Service
    outbound: Outbound = Outbound()
    admin: Admin = Admin()
    consul: ConsulSection = ConsulSection()


LATER = frozenset({"inbound", "upstreams", "service.health", "outbound.tls", "admin.tls"})
"""Keys that mean something and that nothing serves yet."""

_SAY = {
    "int_type": "write a whole number",
    "greater_than_equal": "write 1 to 65535",
    "less_than_equal": "write 1 to 65535",
    "string_type": "write text",
    "model_type": "write keys and values below it",
    "literal_error": "write {expected}, the only one that is carried yet",
}


def load(file: Path) -> Config:
    """Read the file.

    Raises:
        ConfigError: it cannot be read, is not YAML or JSON, or has mistakes; all of them are listed.
    """
    try:
        found = reading.read(file.read_bytes(), str(file))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except PolicyError as error:
        raise _refusal(file, list(error.mistakes)) from error
    if not isinstance(found.value, dict):
        raise _refusal(file, ["not keys and values; begin with `service: {name: …}`"])
    mistakes = list(found.mistakes)
    try:
        config = Config.model_validate(found.value)
    except ValidationError as error:
        mistakes += [(mistake["loc"], _why(mistake)) for mistake in error.errors(include_url=False)]
    else:
        mistakes += _clashes(config)
        if not mistakes:
            return config
    raise _refusal(file, [_line(path, why, found) for path, why in mistakes])


def _clashes(config: Config) -> Iterator[reading.Mistake]:
    """One port cannot be two things; with the service's own port the sidecar would take itself for the service."""
    taken: dict[int, str] = {}
    for name, port in (
        ("service", config.service.port),
        ("outbound", config.outbound.port),
        ("admin", config.admin.port),
    ):
        if port in taken:
            yield (name, "port"), f"{port}: {taken[port]}.port is the same; give each its own"
        elif port is not None:
            taken[port] = name


def _line(path: reading.Path, why: str, found: reading.Reading) -> str:
    numbers = (found.lines.get(path[:length]) for length in range(len(path), 0, -1))
    number = next((number for number in numbers if number), None)
    return f"{reading.path_text(path)}: {why}" + (f" (line {number})" if number else "")


def _why(mistake: ErrorDetails) -> str:
    path = mistake["loc"]
    if mistake["type"] == "extra_forbidden":
        return _unknown(path)
    if mistake["type"] == "missing":
        return "missing; write `service: {name: …}`, the name callers use"
    if mistake["input"] is None:
        return "no value; write one, or leave the key out"
    context = mistake.get("ctx", {})
    advice = _SAY.get(mistake["type"], str(context.get("error", mistake["msg"])))
    return f"{mistake['input']!r}: {advice.format(**context) if mistake['type'] in _SAY else advice}"


def _unknown(path: tuple[int | str, ...]) -> str:
    if reading.path_text(path) in LATER:
        return "not served by this version of the sidecar; remove it"
    section: Any = Config
    for step in path[:-1]:
        section = section.model_fields[step].annotation
    near = difflib.get_close_matches(str(path[-1]), section.model_fields, n=1, cutoff=0.6)
    return (
        f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known are {', '.join(section.model_fields)}"
    )


def _refusal(file: Path, lines: list[str]) -> ConfigError:
    count = f"{len(lines)} mistake{'s' if len(lines) != 1 else ''}"
    return ConfigError(f"{file}: {count}\n" + "\n".join(f"  {line}" for line in lines))

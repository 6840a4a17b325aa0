"""Reads the bodies of Connect's requests as Consul 1.8.7 does, and permissions as 1.9 and later do."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote, urlsplit

from meshsdk_registry.agent import certificates
from meshsdk_registry.agent.authority import MAX_LEAF, MIN_LEAF, Configuration
from meshsdk_registry.agent.bodies import Fields, Refused, duration, parse
from meshsdk_registry.agent.intentions import Intention

__all__ = ["authorization", "configuration", "exact_intention", "intention"]

_READ_ONLY = "ID CreatedAt UpdatedAt Hash Precedence CreateIndex ModifyIndex"
_INTENTION = f"{_READ_ONLY} SourceNS SourceName DestinationNS DestinationName DefaultAddr DefaultPort"
_SAID = "SourceType Action Description Meta"
_PATHS = ("PathExact", "PathPrefix", "PathRegex")
_HEADER = ("Present", "Exact", "Prefix", "Suffix", "Contains", "Regex")
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"}


def configuration(body: bytes) -> Configuration:
    """`/v1/connect/ca/configuration`."""
    fields = _fields(body, "Provider Config State ForceWithoutCrossSigning CreateIndex ModifyIndex")
    provider = fields.get("Provider", str, "")
    if provider != "consul":
        raise Refused(500, f'could not initialize provider: unknown CA provider "{provider}"')
    config = fields.raw("Config")
    if config is not None and not isinstance(config, dict):
        raise Refused(400, "Bad request: Request decode failed: json: cannot unmarshal into Go struct field .Config")
    for name in ("RootCert", "PrivateKeyType", "PrivateKeyBits"):
        if (config or {}).get(name):
            raise Refused(500, f"the dev agent makes its own P-256 roots: leave {name} out")
    leaf = _leaf_seconds((config or {}).get("LeafCertTTL"))
    _check_key(str((config or {}).get("PrivateKey") or ""))
    return Configuration(config, fields.get("ForceWithoutCrossSigning", bool, default=False), leaf)


def authorization(body: bytes) -> tuple[str, str]:
    """`/v1/agent/connect/authorize`: target and calling service. Consul does not look at the trust domain either."""
    fields = _fields(body, "Target ClientCertURI ClientCertSerial Namespace")
    target = fields.get("Target", str, "")
    if not target:
        raise Refused(400, "Bad request: Target service must be specified")
    uri = urlsplit(fields.get("ClientCertURI", str, ""))
    if uri.scheme == "spiffe" and (service := re.fullmatch(r"/ns/[^/]+/dc/[^/]+/svc/([^/]+)", uri.path)):
        return target, unquote(service[1])
    signing = uri.scheme == "spiffe" and not uri.path and "." in uri.netloc
    raise Refused(400, f"Bad request: ClientCertURI not a valid {'Service' if signing else 'Connect'} identifier")


def intention(body: bytes, *, new: bool) -> Intention:
    """`/v1/connect/intentions` and `/v1/connect/intentions/:id`."""
    start = "Failed to decode request body: " if new else "Bad request: Request decode failed: "
    try:
        fields = Fields(parse(body), f"{_INTENTION} {_SAID}")
        _check_no_id(fields.get("ID", str, "") if new else "")
        return Intention(
            source_ns=fields.get("SourceNS", str, "") or "default",
            source=fields.get("SourceName", str, ""),
            destination_ns=fields.get("DestinationNS", str, "") or "default",
            destination=fields.get("DestinationName", str, ""),
            default_addr=fields.get("DefaultAddr", str, ""),
            default_port=fields.get("DefaultPort", int, 0),
            **_said(fields),
        )
    except Refused as refused:
        if refused.status == 500:
            raise
        words = refused.text.removeprefix("Request decode failed: ")
        raise Refused(500 if new else 400, start + words) from refused


def exact_intention(body: bytes, source: str, destination: str) -> Intention:
    """`/v1/connect/intentions/exact`, of Consul 1.9 and later."""
    fields = _fields(body, f"{_INTENTION} {_SAID} Permissions")
    permissions: list[Any] = fields.get("Permissions", list, [])
    for n, permission in enumerate(permissions):
        _check_permission(permission, f"Permissions[{n}]")
    action = fields.get("Action", str, "")
    if permissions and action:
        raise Refused(400, "Bad request: Action must be omitted if Permissions are specified")
    return Intention(source, destination, permissions=tuple(permissions), **_said(fields))


def _check_no_id(key: str) -> None:
    if key:
        raise Refused(500, "ID must be empty when creating a new intention")


def _said(fields: Fields) -> dict[str, Any]:
    meta = fields.get("Meta", dict, {})
    if not all(isinstance(value, str) for value in meta.values()):
        kind = "number" if any(isinstance(value, (int, float)) for value in meta.values()) else "object"
        raise Refused(400, f"json: cannot unmarshal {kind} into Go struct field .Meta of type string")
    return {
        "source_type": fields.get("SourceType", str, "") or "consul",
        "action": fields.get("Action", str, ""),
        "description": fields.get("Description", str, ""),
        "meta": meta,
    }


def _check_permission(body: Any, where: str) -> None:
    fields = Fields(body, "Action HTTP")
    if fields.get("Action", str, "") not in {"allow", "deny"}:
        raise Refused(400, f"Bad request: {where}.Action must be set to 'allow' or 'deny'")
    if not fields.raw("HTTP"):
        raise Refused(400, f"Bad request: {where} is missing required 'HTTP' section")
    http = Fields(fields.raw("HTTP"), f"{' '.join(_PATHS)} Header Methods")
    paths = [path for name in _PATHS if (path := http.get(name, str, ""))]
    if len(paths) > 1:
        raise Refused(400, f"Bad request: {where}.HTTP should only contain at most one of {', '.join(_PATHS)}")
    for name in _PATHS[:2]:
        if (path := http.get(name, str, "")) and not path.startswith("/"):
            raise Refused(400, f"Bad request: {where}.HTTP.{name} doesn't start with '/': {path!r}")
    if unknown := [name for name in http.texts("Methods") if name not in _METHODS]:
        raise Refused(400, f"Bad request: {where}.HTTP.Methods contains an invalid method {unknown[0]!r}")
    for n, header in enumerate(http.get("Header", list, [])):
        _check_header(header, f"{where}.HTTP.Header[{n}]")


def _check_header(body: Any, where: str) -> None:
    fields = Fields(body, f"Name Invert IgnoreCase {' '.join(_HEADER)}")
    if not fields.get("Name", str, ""):
        raise Refused(400, f"Bad request: {where} missing required Name field")
    if sum(bool(fields.raw(name)) for name in _HEADER) != 1:
        raise Refused(400, f"Bad request: {where} should only contain one of {', '.join(_HEADER)}")


def _fields(body: bytes, known: str) -> Fields:
    try:
        return Fields(parse(body), known)
    except Refused as refused:
        raise Refused(400, f"Bad request: {refused.text}") from refused


def _leaf_seconds(value: Any) -> float | None:
    """A Go duration, or nanoseconds as Go reads a bare number."""
    if value is None or value == "":
        return None
    try:
        seconds = duration(value) if isinstance(value, str) else float(value) / 1e9
    except (Refused, TypeError, ValueError) as error:
        words = f"1 error(s) decoding:\n\n* error decoding 'LeafCertTTL': time: invalid duration \"{value}\""
        raise Refused(500, f"error configuring provider: error decoding config: {words}") from error
    if seconds < MIN_LEAF:
        raise Refused(500, f"error configuring provider: leaf cert TTL must be greater or equal than {MIN_LEAF:g}s")
    if seconds >= MAX_LEAF:
        raise Refused(500, "error configuring provider: leaf cert TTL must be less than 8760h0m0s")
    return seconds


def _check_key(text: str) -> None:
    start = "error generating CA root certificate: error generating CA: error parsing private key"
    if not text:
        return
    if "-----BEGIN" not in text:
        raise Refused(500, f'{start} "{text}": no PEM-encoded data found')
    try:
        certificates.read_key(text)
    except (ValueError, TypeError) as error:  # cryptography raises TypeError for a key that wants a password
        raise Refused(500, f"{start}: {error}") from error  # without the key

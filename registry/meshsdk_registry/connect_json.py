"""Reads Consul Connect's JSON into its model, and writes intentions; another shape is a ValueError that says where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from meshsdk_registry.connect_model import (
    Action,
    CaConfiguration,
    HeaderMatch,
    Intention,
    Leaf,
    Permission,
    Root,
    Roots,
)
from meshsdk_registry.decode import as_kind, get, pairs, texts

__all__ = ["configuration", "intention_body", "intentions", "leaf", "roots"]

_CONDITIONS = {"PathExact": "path_exact", "PathPrefix": "path_prefix", "PathRegex": "path_regex"}
_HEADER_TEXTS = ("Exact", "Prefix", "Suffix", "Contains", "Regex")
_HEADER_FLAGS = {"Present": "present", "Invert": "invert", "IgnoreCase": "ignore_case"}
_ELSEWHERE = {
    "SourceNS": "namespace",
    "DestinationNS": "namespace",
    "SourcePartition": "partition",
    "DestinationPartition": "partition",
    "SourcePeer": "peer",
    "SourceSamenessGroup": "sameness group",
}


def leaf(body: object) -> Leaf:
    """`/v1/agent/connect/ca/leaf/:service`."""
    parts = as_kind(body, dict, "body")
    uri = get(parts, "ServiceURI", str, "body")
    if not uri.startswith("spiffe://"):
        raise ValueError(f"body.ServiceURI: expected a SPIFFE id, got {uri[:50]!r}")
    return Leaf(
        service=get(parts, "Service", str, "body"),
        uri=uri,
        serial=get(parts, "SerialNumber", str, "body"),
        cert_pem=_pem(get(parts, "CertPEM", str, "body"), "CERTIFICATE", "body.CertPEM"),
        key_pem=_pem(get(parts, "PrivateKeyPEM", str, "body"), "PRIVATE KEY", "body.PrivateKeyPEM"),
        valid_after=_time(get(parts, "ValidAfter", str, "body"), "body.ValidAfter"),
        valid_before=_time(get(parts, "ValidBefore", str, "body"), "body.ValidBefore"),
        modify_index=get(parts, "ModifyIndex", int, "body"),
    )


def roots(body: object) -> Roots:
    """`/v1/agent/connect/ca/roots` and `/v1/connect/ca/roots`, in an order of ours: the active one first."""
    parts = as_kind(body, dict, "body")
    entries = [_root(entry, f"Roots[{n}]") for n, entry in enumerate(get(parts, "Roots", list, "body"))]
    active = get(parts, "ActiveRootID", str, "body")
    if active not in {root.id for root in entries}:
        raise ValueError(f"body.ActiveRootID: expected the id of a listed root, got {active[:50]!r}")
    domain = get(parts, "TrustDomain", str, "body")
    if not domain:
        raise ValueError("body.TrustDomain: expected a name, got ''")
    return Roots(active, domain, tuple(sorted(entries, key=lambda root: (not root.active, root.id))))


def configuration(body: object) -> CaConfiguration:
    """`/v1/connect/ca/configuration`."""
    parts = as_kind(body, dict, "body")
    config = as_kind(parts.get("Config") or {}, dict, "body.Config")
    return CaConfiguration(get(parts, "Provider", str, "body"), config)


def intentions(body: object) -> tuple[Intention, ...]:
    """`/v1/connect/intentions`, of 1.8 and of later ones, in an order of ours: what decides first comes first."""
    entries = [_intention(entry, f"[{n}]") for n, entry in enumerate(as_kind(body or [], list, "body"))]
    return tuple(sorted(entries, key=lambda one: (-one.precedence, one.destination, one.source, one.foreign, one.id)))


def intention_body(action: str, permissions: Sequence[Permission]) -> dict[str, Any]:
    """What is written of an intention, names aside; ValueError says what Consul would not take."""
    if permissions and action:
        raise ValueError(f"action {action!r} beside permissions: permissions decide call by call; write action ''")
    if not permissions and action not in {"allow", "deny"}:
        raise ValueError(f"action {action!r}: write 'allow' or 'deny', or give permissions")
    body: dict[str, Any] = {"SourceType": "consul"}
    if action:
        body["Action"] = action
    else:
        body["Permissions"] = [_permission_body(permission) for permission in permissions]
    return body


def _root(entry: object, where: str) -> Root:
    parts = as_kind(entry, dict, where)
    found = texts(parts.get("IntermediateCerts"), f"{where}.IntermediateCerts")
    return Root(
        id=get(parts, "ID", str, where),
        name=as_kind(parts.get("Name", ""), str, f"{where}.Name"),
        pem=_pem(get(parts, "RootCert", str, where), "CERTIFICATE", f"{where}.RootCert"),
        intermediates=tuple(_pem(text, "CERTIFICATE", f"{where}.IntermediateCerts") for text in found),
        active=get(parts, "Active", bool, where),
        not_after=_time(get(parts, "NotAfter", str, where), f"{where}.NotAfter"),
    )


def _intention(entry: object, where: str) -> Intention:
    parts = as_kind(entry, dict, where)
    rules = as_kind(parts.get("Permissions") or [], list, f"{where}.Permissions")
    permissions = tuple(_permission(rule, f"{where}.Permissions[{n}]") for n, rule in enumerate(rules))
    return Intention(
        id=as_kind(parts.get("ID", ""), str, f"{where}.ID"),
        source=get(parts, "SourceName", str, where),
        destination=get(parts, "DestinationName", str, where),
        action=_action(parts.get("Action", ""), f"{where}.Action", empty=bool(permissions)),
        precedence=get(parts, "Precedence", int, where),
        permissions=permissions,
        source_type=as_kind(parts.get("SourceType", "consul"), str, f"{where}.SourceType"),
        description=as_kind(parts.get("Description", ""), str, f"{where}.Description"),
        meta=pairs(parts.get("Meta"), f"{where}.Meta"),
        foreign=_foreign(parts, where),
        unknown=("JWT",) if parts.get("JWT") else (),
        modify_index=as_kind(parts.get("ModifyIndex", 0), int, f"{where}.ModifyIndex"),
    )


def _foreign(parts: Mapping[str, Any], where: str) -> str:
    for name, kind in _ELSEWHERE.items():
        value = as_kind(parts.get(name, ""), str, f"{where}.{name}")
        if value not in {"", "default"}:
            return f"{kind} {value!r}"
    return ""


def _permission(entry: object, where: str) -> Permission:
    parts = as_kind(entry, dict, where)
    http = as_kind(parts.get("HTTP") or {}, dict, f"{where}.HTTP")
    headers = as_kind(http.get("Header") or [], list, f"{where}.HTTP.Header")
    named = [_header(header, f"{where}.HTTP.Header[{n}]") for n, header in enumerate(headers)]
    unknown = [
        *_others(parts, {"Action", "HTTP"}),
        *_others(http, {*_CONDITIONS, "Header", "Methods"}),
        *(name for _, others in named for name in others),
    ]
    paths = {field: as_kind(http.get(name, ""), str, f"{where}.HTTP.{name}") for name, field in _CONDITIONS.items()}
    return Permission(
        action=_action(get(parts, "Action", str, where), f"{where}.Action"),
        headers=tuple(header for header, _ in named),
        methods=texts(http.get("Methods"), f"{where}.HTTP.Methods"),
        unknown=tuple(unknown),
        **paths,
    )


def _header(entry: object, where: str) -> tuple[HeaderMatch, list[str]]:
    parts = as_kind(entry, dict, where)

    def flag(name: str) -> bool:
        return as_kind(parts.get(name, False), bool, f"{where}.{name}")

    def text(name: str) -> str:
        return as_kind(parts.get(name, ""), str, f"{where}.{name}")

    match = HeaderMatch(
        name=get(parts, "Name", str, where),
        present=flag("Present"),
        exact=text("Exact"),
        prefix=text("Prefix"),
        suffix=text("Suffix"),
        contains=text("Contains"),
        regex=text("Regex"),
        invert=flag("Invert"),
        ignore_case=flag("IgnoreCase"),
    )
    return match, _others(parts, {"Name", *_HEADER_TEXTS, *_HEADER_FLAGS})


def _others(parts: Mapping[str, Any], known: set[str]) -> list[str]:
    return sorted(str(name) for name, value in parts.items() if name not in known and value not in (None, "", [], {}))


def _permission_body(permission: Permission) -> dict[str, Any]:
    if permission.action not in {"allow", "deny"}:
        raise ValueError(f"action {permission.action!r} of a permission: write 'allow' or 'deny'")
    if permission.unknown:
        raise ValueError(f"a permission with {', '.join(permission.unknown)}: write it with Consul's own tools")
    http: dict[str, Any] = {name: getattr(permission, field) for name, field in _CONDITIONS.items()}
    if sum(bool(value) for value in http.values()) > 1:
        raise ValueError("a permission has one path condition: write path_exact, path_prefix or path_regex")
    http["Methods"] = list(permission.methods)
    http["Header"] = [_header_body(header) for header in permission.headers]
    kept = {name: value for name, value in http.items() if value}
    if not kept:
        raise ValueError("a permission without condition: write a path, a method or a header, or an action for all")
    return {"Action": permission.action, "HTTP": kept}


def _header_body(header: HeaderMatch) -> dict[str, Any]:
    flags = {name: getattr(header, field) for name, field in _HEADER_FLAGS.items()}
    words = {name: getattr(header, name.lower()) for name in _HEADER_TEXTS}
    kept = {name: value for name, value in {**flags, **words}.items() if value}
    if len(kept.keys() - {"Invert", "IgnoreCase"}) != 1:
        raise ValueError(f"header {header.name!r}: write one of present, {', '.join(words).lower()}")
    return {"Name": header.name, **kept}


def _action(value: object, where: str, *, empty: bool = False) -> Action:
    if value == "allow":
        return "allow"
    if value == "deny":
        return "deny"
    if value == "" and empty:
        return ""
    raise ValueError(f"{where}: expected allow or deny, got {str(value)[:50]!r}")


def _pem(text: str, kind: str, where: str) -> str:
    if not text.lstrip().startswith("-----BEGIN ") or f"{kind}-----" not in text:
        raise ValueError(f"{where}: expected PEM of a {kind.lower()}, got {len(text)} characters of something else")
    return text


def _time(text: str, where: str) -> datetime:
    """RFC 3339, section 5.6."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{where}: expected a time, got {text[:50]!r}") from error
    if time.tzinfo is None:
        raise ValueError(f"{where}: expected a time with its zone, got {text[:50]!r}")
    return time

"""Reads Consul's JSON into the model; what does not have the documented shape is a ValueError that says where."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, TypeVar

from meshsdk_registry.model import AgentInfo, Check, Health, Instance, KeyValue, LocalService

__all__ = [
    "agent_info",
    "as_kind",
    "checks",
    "get",
    "instances",
    "key_values",
    "local_checks",
    "local_services",
    "pairs",
    "services",
    "texts",
]

T = TypeVar("T")

_SEVERITY = (Health.PASSING, Health.WARNING, Health.CRITICAL, Health.MAINTENANCE)
_MAINTENANCE = ("_service_maintenance:", "_node_maintenance")


def agent_info(body: object) -> AgentInfo:
    """`/v1/agent/self`."""
    parts = as_kind(body, dict, "body")
    config = get(parts, "Config", dict, "body")
    node, datacenter, version = (get(config, name, str, "Config") for name in ("NodeName", "Datacenter", "Version"))
    debug = as_kind(parts.get("DebugConfig") or {}, dict, "body.DebugConfig")
    return AgentInfo(node, datacenter, version, _intention_default(debug))


def _intention_default(debug: Mapping[str, Any]) -> str:
    """Consul promises nothing about `DebugConfig`: whatever is not known here is no answer, and no mistake."""
    own = debug.get("DefaultIntentionPolicy")
    if own in ("allow", "deny"):
        return str(own)
    later = debug.get("ACLResolverSettings")  # since 1.10; before, the same keys stood beside it
    settings = later if isinstance(later, dict) else debug
    enabled, policy = settings.get("ACLsEnabled"), settings.get("ACLDefaultPolicy")
    if enabled is False:
        return "allow"
    return str(policy) if enabled is True and policy in ("allow", "deny") else ""


def services(body: object) -> dict[str, tuple[str, ...]]:
    """`/v1/catalog/services`: tags by name, sorted, because Consul lists them in any order."""
    return {name: tuple(sorted(texts(tags, f"[{name}]"))) for name, tags in as_kind(body, dict, "body").items()}


def instances(body: object) -> tuple[Instance, ...]:
    """`/v1/health/service/:name`, in an order of ours, so that equal answers compare equal."""
    entries = [_instance(entry, f"[{n}]") for n, entry in enumerate(as_kind(body, list, "body"))]
    return tuple(sorted(entries, key=lambda instance: (instance.node, instance.id)))


def key_values(body: object) -> tuple[KeyValue, ...]:
    """`/v1/kv/:key`, single or recursive."""
    return tuple(_key_value(entry, f"[{n}]") for n, entry in enumerate(as_kind(body, list, "body")))


def checks(body: object) -> tuple[Check, ...]:
    """`/v1/health/checks/:service`."""
    return tuple(_check(entry, f"[{n}]") for n, entry in enumerate(as_kind(body, list, "body")))


def local_services(body: object) -> dict[str, LocalService]:
    """`/v1/agent/services` by id."""
    return {name: _local_service(entry, f"[{name}]") for name, entry in as_kind(body, dict, "body").items()}


def local_checks(body: object) -> dict[str, Check]:
    """`/v1/agent/checks` by id."""
    return {name: _check(entry, f"[{name}]") for name, entry in as_kind(body, dict, "body").items()}


def _instance(entry: object, where: str) -> Instance:
    parts = as_kind(entry, dict, where)
    node = get(parts, "Node", dict, where)
    service = get(parts, "Service", dict, where)
    health, output = _worst(get(parts, "Checks", list, where), f"{where}.Checks")
    where += ".Service"
    return Instance(
        id=get(service, "ID", str, where),
        service=get(service, "Service", str, where),
        node=get(node, "Node", str, where),
        address=get(service, "Address", str, where) or get(node, "Address", str, where),
        port=get(service, "Port", int, where),
        meta=pairs(service.get("Meta"), f"{where}.Meta"),
        tags=texts(service.get("Tags"), f"{where}.Tags"),
        weight=_weight(service, health, where),
        health=health,
        output=output,
        datacenter=as_kind(node.get("Datacenter", ""), str, f"{where}.Datacenter"),
        modify_index=as_kind(service.get("ModifyIndex", 0), int, f"{where}.ModifyIndex"),
    )


def _worst(checks: list[Any], where: str) -> tuple[Health, str]:
    worst, output = Health.PASSING, ""
    for n, entry in enumerate(checks):
        check = _check(entry, f"{where}[{n}]")
        if _SEVERITY.index(check.status) > _SEVERITY.index(worst):
            worst = check.status
            output = check.notes if worst is Health.MAINTENANCE else check.output
    return worst, output


def _weight(service: Mapping[str, Any], health: Health, where: str) -> int:
    weights = service.get("Weights")
    if weights is None:  # absent before Consul 1.2.3
        return 1
    name = "Warning" if health is Health.WARNING else "Passing"
    return get(as_kind(weights, dict, f"{where}.Weights"), name, int, f"{where}.Weights")


def _key_value(entry: object, where: str) -> KeyValue:
    pair = as_kind(entry, dict, where)
    value = pair.get("Value")
    return KeyValue(
        key=get(pair, "Key", str, where),
        value=None if value is None else _bytes(value, f"{where}.Value"),
        modify_index=get(pair, "ModifyIndex", int, where),
        flags=as_kind(pair.get("Flags", 0), int, f"{where}.Flags"),
    )


def _local_service(entry: object, where: str) -> LocalService:
    service = as_kind(entry, dict, where)
    return LocalService(
        id=get(service, "ID", str, where),
        service=get(service, "Service", str, where),
        address=get(service, "Address", str, where),
        port=get(service, "Port", int, where),
        meta=pairs(service.get("Meta"), f"{where}.Meta"),
        tags=texts(service.get("Tags"), f"{where}.Tags"),
    )


def _check(entry: object, where: str) -> Check:
    check = as_kind(entry, dict, where)
    name, status = get(check, "CheckID", str, where), get(check, "Status", str, where)
    if status not in {"passing", "warning", "critical"}:
        raise ValueError(f"{where}.Status: expected passing, warning or critical, got {status!r}")
    in_maintenance = name.startswith(_MAINTENANCE) and status == "critical"
    return Check(
        id=name,
        status=Health.MAINTENANCE if in_maintenance else Health(status),
        notes=as_kind(check.get("Notes", ""), str, f"{where}.Notes"),
        output=as_kind(check.get("Output", ""), str, f"{where}.Output"),
        service_id=as_kind(check.get("ServiceID", ""), str, f"{where}.ServiceID"),
        node=as_kind(check.get("Node", ""), str, f"{where}.Node"),
    )


def _bytes(value: object, where: str) -> bytes:
    try:
        return base64.b64decode(as_kind(value, str, where), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{where}: expected base64, {error}") from error


def texts(value: object, where: str) -> tuple[str, ...]:
    """A list of texts; null is none."""
    return tuple(as_kind(item, str, where) for item in as_kind(value or [], list, where))


def pairs(value: object, where: str) -> dict[str, str]:
    """Texts by name; null is none."""
    return {
        as_kind(key, str, where): as_kind(text, str, where) for key, text in as_kind(value or {}, dict, where).items()
    }


def get(parts: Mapping[str, Any], name: str, kind: type[T], where: str) -> T:
    """A field that must be there."""
    if name not in parts:
        raise ValueError(f"{where}.{name} is missing")
    return as_kind(parts[name], kind, f"{where}.{name}")


def as_kind(value: object, kind: type[T], where: str) -> T:
    """The value, if it is of the kind; a bool is no int."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise ValueError(f"{where}: expected {kind.__name__}, got {str(value)[:50]!r}")  # one kind of error
    return value

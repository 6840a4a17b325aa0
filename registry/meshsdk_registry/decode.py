"""Reads Consul's JSON into the model; what does not have the documented shape is a ValueError that says where."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, TypeVar

from meshsdk_registry.model import AgentInfo, Check, Health, Instance, KeyValue, LocalService

__all__ = ["agent_info", "checks", "instances", "key_values", "local_checks", "local_services", "services"]

T = TypeVar("T")

_SEVERITY = (Health.PASSING, Health.WARNING, Health.CRITICAL, Health.MAINTENANCE)
_MAINTENANCE = ("_service_maintenance:", "_node_maintenance")


def agent_info(body: object) -> AgentInfo:
    """`/v1/agent/self`."""
    config = _get(_as(body, dict, "body"), "Config", dict, "body")
    return AgentInfo(*(_get(config, name, str, "Config") for name in ("NodeName", "Datacenter", "Version")))


def services(body: object) -> dict[str, tuple[str, ...]]:
    """`/v1/catalog/services`: tags by name, sorted, because Consul lists them in any order."""
    return {name: tuple(sorted(_texts(tags, f"[{name}]"))) for name, tags in _as(body, dict, "body").items()}


def instances(body: object) -> tuple[Instance, ...]:
    """`/v1/health/service/:name`, in an order of ours, so that equal answers compare equal."""
    entries = [_instance(entry, f"[{n}]") for n, entry in enumerate(_as(body, list, "body"))]
    return tuple(sorted(entries, key=lambda instance: (instance.node, instance.id)))


def key_values(body: object) -> tuple[KeyValue, ...]:
    """`/v1/kv/:key`, single or recursive."""
    return tuple(_key_value(entry, f"[{n}]") for n, entry in enumerate(_as(body, list, "body")))


def checks(body: object) -> tuple[Check, ...]:
    """`/v1/health/checks/:service`."""
    return tuple(_check(entry, f"[{n}]") for n, entry in enumerate(_as(body, list, "body")))


def local_services(body: object) -> dict[str, LocalService]:
    """`/v1/agent/services` by id."""
    return {name: _local_service(entry, f"[{name}]") for name, entry in _as(body, dict, "body").items()}


def local_checks(body: object) -> dict[str, Check]:
    """`/v1/agent/checks` by id."""
    return {name: _check(entry, f"[{name}]") for name, entry in _as(body, dict, "body").items()}


def _instance(entry: object, where: str) -> Instance:
    parts = _as(entry, dict, where)
    node = _get(parts, "Node", dict, where)
    service = _get(parts, "Service", dict, where)
    health, output = _worst(_get(parts, "Checks", list, where), f"{where}.Checks")
    where += ".Service"
    return Instance(
        id=_get(service, "ID", str, where),
        service=_get(service, "Service", str, where),
        node=_get(node, "Node", str, where),
        address=_get(service, "Address", str, where) or _get(node, "Address", str, where),
        port=_get(service, "Port", int, where),
        meta=_pairs(service.get("Meta"), f"{where}.Meta"),
        tags=_texts(service.get("Tags"), f"{where}.Tags"),
        weight=_weight(service, health, where),
        health=health,
        output=output,
        datacenter=_as(node.get("Datacenter", ""), str, f"{where}.Datacenter"),
        modify_index=_as(service.get("ModifyIndex", 0), int, f"{where}.ModifyIndex"),
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
    return _get(_as(weights, dict, f"{where}.Weights"), name, int, f"{where}.Weights")


def _key_value(entry: object, where: str) -> KeyValue:
    pair = _as(entry, dict, where)
    value = pair.get("Value")
    return KeyValue(
        key=_get(pair, "Key", str, where),
        value=None if value is None else _bytes(value, f"{where}.Value"),
        modify_index=_get(pair, "ModifyIndex", int, where),
        flags=_as(pair.get("Flags", 0), int, f"{where}.Flags"),
    )


def _local_service(entry: object, where: str) -> LocalService:
    service = _as(entry, dict, where)
    return LocalService(
        id=_get(service, "ID", str, where),
        service=_get(service, "Service", str, where),
        address=_get(service, "Address", str, where),
        port=_get(service, "Port", int, where),
        meta=_pairs(service.get("Meta"), f"{where}.Meta"),
        tags=_texts(service.get("Tags"), f"{where}.Tags"),
    )


def _check(entry: object, where: str) -> Check:
    check = _as(entry, dict, where)
    name, status = _get(check, "CheckID", str, where), _get(check, "Status", str, where)
    if status not in {"passing", "warning", "critical"}:
        raise ValueError(f"{where}.Status: expected passing, warning or critical, got {status!r}")
    in_maintenance = name.startswith(_MAINTENANCE) and status == "critical"
    return Check(
        id=name,
        status=Health.MAINTENANCE if in_maintenance else Health(status),
        notes=_as(check.get("Notes", ""), str, f"{where}.Notes"),
        output=_as(check.get("Output", ""), str, f"{where}.Output"),
        service_id=_as(check.get("ServiceID", ""), str, f"{where}.ServiceID"),
        node=_as(check.get("Node", ""), str, f"{where}.Node"),
    )


def _bytes(value: object, where: str) -> bytes:
    try:
        return base64.b64decode(_as(value, str, where), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{where}: expected base64, {error}") from error


def _texts(value: object, where: str) -> tuple[str, ...]:
    return tuple(_as(item, str, where) for item in _as(value or [], list, where))


def _pairs(value: object, where: str) -> dict[str, str]:
    return {_as(key, str, where): _as(text, str, where) for key, text in _as(value or {}, dict, where).items()}


def _get(parts: Mapping[str, Any], name: str, kind: type[T], where: str) -> T:
    if name not in parts:
        raise ValueError(f"{where}.{name} is missing")
    return _as(parts[name], kind, f"{where}.{name}")


def _as(value: object, kind: type[T], where: str) -> T:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise ValueError(f"{where}: expected {kind.__name__}, got {str(value)[:50]!r}")  # one kind of error
    return value

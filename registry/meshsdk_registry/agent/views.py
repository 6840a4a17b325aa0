"""Shows the dev agent's state as Consul's JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from meshsdk_registry.agent.catalog import Check, Node, Service
from meshsdk_registry.agent.keys import Entry
from meshsdk_registry.agent.state import State

__all__ = ["VERSION", "agent_self", "catalog_service", "check", "entry", "local_service", "node", "service_health"]

VERSION = "1.8.7+meshsdk.dev"


def agent_self(state: State) -> Mapping[str, Any]:
    """`/v1/agent/self`, the part that says who answers, and what it does about callers that no intention is about."""
    config = {
        "Datacenter": state.datacenter,
        "NodeName": state.node,
        "Server": True,
        "Version": VERSION,
        "Revision": "",
    }
    return {
        "Config": config,
        "DebugConfig": {
            "ACLsEnabled": state.intention_default == "deny",
            "ACLDefaultPolicy": state.intention_default,
        },
        "Member": {"Name": state.node, "Addr": "127.0.0.1", "Port": 8301, "Status": 1},
    }


def node(shown: Node, datacenter: str) -> dict[str, Any]:
    """A node of catalog and health."""
    return {
        "ID": shown.id,
        "Node": shown.name,
        "Address": shown.address,
        "Datacenter": datacenter,
        "TaggedAddresses": None,
        "Meta": shown.meta,
        "CreateIndex": shown.created,
        "ModifyIndex": shown.modified,
    }


def local_service(service: Service) -> dict[str, Any]:
    """A service of `/v1/agent/services`."""
    return {
        "ID": service.id,
        "Service": service.name,
        "Tags": list(service.tags),
        "Meta": service.meta,
        "Port": service.port,
        "Address": service.address,
        "Weights": {"Passing": service.passing, "Warning": service.warning},
        "EnableTagOverride": False,
        **dict(service.extra),
    }


def check(state: State, shown: Check) -> dict[str, Any]:
    """A check, wherever it is shown."""
    service = state.catalog.services.get((shown.node, shown.service_id))
    return {
        "Node": shown.node,
        "CheckID": shown.id,
        "Name": shown.name,
        "Status": shown.status,
        "Notes": shown.notes,
        "Output": shown.output,
        "ServiceID": shown.service_id,
        "ServiceName": service.name if service else "",
        "ServiceTags": list(service.tags) if service else [],
        "Type": shown.kind,
        "Definition": {},
        "CreateIndex": shown.created,
        "ModifyIndex": shown.modified,
    }


def service_health(state: State, service: Service) -> dict[str, Any]:
    """An instance of `/v1/health/service/:name`."""
    indexes = {"CreateIndex": service.created, "ModifyIndex": service.modified}
    return {
        "Node": node(state.catalog.nodes[service.node], state.datacenter),
        "Service": {"Proxy": {}, "Connect": {}, **local_service(service), **indexes},
        "Checks": [check(state, item) for item in state.catalog.checks_of(service)],
    }


def catalog_service(state: State, service: Service) -> dict[str, Any]:
    """An instance of `/v1/catalog/service/:name`."""
    shown = node(state.catalog.nodes[service.node], state.datacenter)
    known = {"Kind": "", "Proxy": {}, "Connect": {}, **local_service(service)}
    fields = {f"Service{name}": value for name, value in known.items() if name != "Service"}
    shown["NodeMeta"] = shown.pop("Meta")
    return {
        **shown,
        **fields,
        "ServiceName": service.name,
        "CreateIndex": service.created,
        "ModifyIndex": service.modified,
    }


def entry(shown: Entry, *, with_value: bool = True) -> dict[str, Any]:
    """A key of `/v1/kv` and of transactions; Consul leaves the value out of what a transaction wrote."""
    value = base64.b64encode(shown.value).decode() if shown.value else None
    return {
        "LockIndex": 0,
        "Key": shown.key,
        "Flags": shown.flags,
        "Value": value if with_value else None,
        "CreateIndex": shown.created,
        "ModifyIndex": shown.modified,
    }

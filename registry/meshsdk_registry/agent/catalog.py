"""The dev agent's catalog, pure: nodes, services, checks, and the index each query answers with.

The index rules are those of Consul's state store, observed on 1.8.7:
Rule 1  Writing what is already there changes nothing and moves no index.
Rule 2  A service's health has the index of the last change to its instances or their checks. A node's change and a
        change of a node check move every service on the node.
Rule 3  A service without instances has the index of the last extinction of any service; before there was one, the
        highest of the tables. So it moves with changes that do not concern it, as Consul's does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from meshsdk_registry.agent.journal import Journal

__all__ = ["Catalog", "Check", "Node", "Service"]


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the catalog."""

    name: str
    address: str
    id: str = ""
    meta: dict[str, str] | None = None
    created: int = field(default=0, compare=False)
    modified: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Service:
    """An instance of a service on a node. `extra` holds what is stored and shown but not understood."""

    node: str
    id: str
    name: str
    address: str = ""
    port: int = 0
    tags: tuple[str, ...] = ()
    meta: dict[str, str] | None = None
    passing: int = 1
    warning: int = 1
    extra: tuple[tuple[str, Any], ...] = ()
    created: int = field(default=0, compare=False)
    modified: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Check:
    """A check of a service, or of a whole node where `service_id` is empty."""

    node: str
    id: str
    name: str = ""
    status: str = "critical"
    notes: str = ""
    output: str = ""
    service_id: str = ""
    kind: str = ""
    created: int = field(default=0, compare=False)
    modified: int = field(default=0, compare=False)


class Catalog:
    """Nodes, services and checks with their indexes."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.nodes: dict[str, Node] = {}
        self.services: dict[tuple[str, str], Service] = {}
        self.checks: dict[tuple[str, str], Check] = {}
        self._of: dict[str, set[tuple[str, str]]] = {}  # keys of the instances by service name
        self._service_index: dict[str, int] = {}
        self._extinction = 0
        self._table = {"nodes": 0, "services": 0, "checks": 0}

    # --- writing ------------------------------------------------------------------------------------

    def put_node(self, node: Node) -> None:
        """Add or change a node (rule 2)."""
        old = self.nodes.get(node.name)
        if old == node:
            return
        index = self._move("nodes", (s.name for s in self.on(node.name)))
        self.nodes[node.name] = replace(node, created=old.created if old else index, modified=index)

    def put_service(self, service: Service) -> None:
        """Add or change an instance; its node must exist."""
        key = (service.node, service.id)
        old = self.services.get(key)
        if old == service:
            return
        if old and old.name != service.name:
            self._forget(key, old)
        index = self._move("services", [service.name])
        self.services[key] = replace(service, created=old.created if old else index, modified=index)
        self._of.setdefault(service.name, set()).add(key)

    def put_check(self, check: Check) -> None:
        """Add or change a check; LookupError for one of a service its node has not."""
        if check.service_id and (check.node, check.service_id) not in self.services:
            raise LookupError(f'failed inserting check: Missing service registration on node "{check.node}"')
        key = (check.node, check.id)
        old = self.checks.get(key)
        if old == check:
            return
        index = self._move("checks", self._concerned(check))
        self.checks[key] = replace(check, created=old.created if old else index, modified=index)

    def drop_check(self, node: str, check_id: str) -> None:
        """Remove a check, if there is one."""
        if check := self.checks.pop((node, check_id), None):
            self._move("checks", self._concerned(check))

    def drop_service(self, node: str, service_id: str) -> None:
        """Remove an instance with its checks, if there is one."""
        service = self.services.pop((node, service_id), None)
        if service is None:
            return
        self.checks = {k: c for k, c in self.checks.items() if k[0] != node or c.service_id != service_id}
        self._forget((node, service_id), service)

    def drop_node(self, node: str) -> None:
        """Remove a node with its services and checks, if there is one."""
        if node not in self.nodes:
            return
        for service in list(self.on(node)):
            self.drop_service(node, service.id)
        self.checks = {key: check for key, check in self.checks.items() if key[0] != node}
        del self.nodes[node]
        self._move("nodes", ())

    # --- reading ------------------------------------------------------------------------------------

    def on(self, node: str) -> Iterable[Service]:
        """The services of a node."""
        return (service for key, service in self.services.items() if key[0] == node)

    def instances(self, name: str) -> tuple[int, list[Service]]:
        """A service's instances and the index of their health (rules 2 and 3)."""
        found = [self.services[key] for key in sorted(self._of.get(name, ()))]
        if found:
            return self._service_index[name], found
        return self._extinction or max(self._table.values()), []

    def names(self) -> tuple[int, dict[str, list[str]]]:
        """All services with all their tags."""
        tags: dict[str, set[str]] = {}
        for service in self.services.values():
            tags.setdefault(service.name, set()).update(service.tags)
        return self._table["services"], {name: sorted(tags[name]) for name in sorted(tags)}

    def all_nodes(self) -> tuple[int, list[Node]]:
        """All nodes by name."""
        return self._table["nodes"], [self.nodes[name] for name in sorted(self.nodes)]

    def checks_of(self, service: Service) -> list[Check]:
        """The checks that decide an instance's health: its node's and its own."""
        of = {"", service.id}
        found = [check for key, check in self.checks.items() if check.service_id in of and key[0] == service.node]
        return sorted(found, key=lambda check: (bool(check.service_id), check.id))

    def node_checks(self, node: str) -> tuple[int, list[Check]]:
        """All checks on a node."""
        return self._table["checks"], [check for key, check in sorted(self.checks.items()) if key[0] == node]

    # --- indexes ------------------------------------------------------------------------------------

    def _concerned(self, check: Check) -> list[str]:
        if check.service_id:
            service = self.services.get((check.node, check.service_id))
            return [service.name] if service else []
        return [service.name for service in self.on(check.node)]

    def _move(self, table: str, names: Iterable[str]) -> int:
        index = self._table[table] = self._journal.advance()
        self._service_index.update(dict.fromkeys(names, index))
        return index

    def _forget(self, key: tuple[str, str], service: Service) -> None:
        keys = self._of[service.name]
        keys.discard(key)
        index = self._move("services", [service.name] if keys else ())
        if not keys:
            del self._of[service.name]
            self._service_index.pop(service.name, None)
            self._extinction = index

"""What Consul says, typed: instances, their health, keys with values. Nothing of meshes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Literal, TypeVar

__all__ = [
    "AgentInfo",
    "Answer",
    "Check",
    "Health",
    "Instance",
    "KeyValue",
    "LocalService",
    "Operation",
    "Registration",
]

T = TypeVar("T")


class Health(StrEnum):
    """The worst of an instance's checks; MAINTENANCE is an operator's word (or a drain) and outranks all."""

    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"
    MAINTENANCE = "maintenance"


@dataclass(frozen=True, slots=True)
class Instance:
    """One registered instance of a service, as `/v1/health/service/:name` lists it.

    Attributes:
        id: Consul's service id. Unique per node only; two nodes may use the same one.
        node: the Consul node it is registered on.
        address: the service's address, or its node's where the service gives none; never a URL. May be empty.
        port: 0 where none was registered.
        weight: Consul's passing weight, or the warning weight while a check warns.
        health: the worst of its checks, node checks included.
        output: the output of the check that made it so; empty while passing.
        modify_index: Consul's ModifyIndex of the registration: it changes when the service is registered anew.
    """

    id: str
    service: str
    node: str
    address: str
    port: int
    meta: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    weight: int = 1
    health: Health = Health.PASSING
    output: str = ""
    datacenter: str = ""
    modify_index: int = 0


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key of Consul KV. `value` is None for a folder-like key that was written without a value."""

    key: str
    value: bytes | None
    modify_index: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """An answer of Consul with what its headers said.

    Attributes:
        value: the typed body.
        index: `X-Consul-Index`, for the next blocking query; 0 where Consul sent none.
        known_leader: False while a stale read came from a server that knows no leader.
        last_contact: seconds since the answering server heard from the leader (stale reads).
    """

    value: T
    index: int = 0
    known_leader: bool = True
    last_contact: float = 0.0


@dataclass(frozen=True, slots=True)
class Registration:
    """What a process tells Consul about itself: one instance with a TTL check.

    Attributes:
        service: the service's name: letters, digits and dashes, as a DNS label.
        id: unique on the node; the same for all workers that share a port.
        address: where callers reach it. Empty lets Consul use the node's address.
        port: 1 to 65535.
        ttl: seconds the check stays passing without a heartbeat.
        deregister_after: seconds of critical after which Consul drops the instance; Consul's minimum is 60.
        native: its port takes mutual TLS with certificates of Consul's CA: proxies of Consul Connect find it.
    """

    service: str
    id: str
    address: str
    port: int
    meta: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    weight: int = 1
    ttl: float = 15.0
    deregister_after: float = 600.0
    native: bool = False

    @property
    def check_id(self) -> str:
        """The id of the instance's TTL check."""
        return f"service:{self.id}"


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """Who answers at Consul's address.

    Attributes:
        intention_default: what Consul lets a caller do whom no intention is about, "allow" or "deny": its
            `default_intention_policy` (1.17), else `acl.default_policy`, else, without ACLs, "allow". Empty where the
            agent does not tell.
    """

    node: str
    datacenter: str
    version: str
    intention_default: str = ""


@dataclass(frozen=True, slots=True)
class LocalService:
    """A service as the agent itself knows it, before and without the catalog."""

    id: str
    service: str
    address: str
    port: int
    meta: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """A check of an instance, or of a node where `service_id` is empty. `notes` holds the reason of a maintenance.

    Ids are unique on a `node` only.
    """

    id: str
    status: Health
    notes: str = ""
    output: str = ""
    service_id: str = ""
    node: str = ""


Verb = Literal[
    "set", "cas", "get", "get-tree", "check-index", "check-not-exists", "delete", "delete-cas", "delete-tree"
]


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a transaction on KV. `index` is the ModifyIndex that cas, check-index and delete-cas compare."""

    verb: Verb
    key: str
    value: bytes | None = None
    index: int = 0

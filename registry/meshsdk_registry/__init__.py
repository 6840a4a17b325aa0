"""The ground floor: what Consul says, typed; it knows nothing of meshes.

`meshsdk_registry.agent` is the dev agent, a small server of Consul's HTTP API for laptops and tests.
"""

from __future__ import annotations

from meshsdk_registry.address import ConsulAddress
from meshsdk_registry.connect_model import HeaderMatch, Intention, Leaf, Permission, Root, Roots
from meshsdk_registry.consul import Consul
from meshsdk_registry.errors import (
    Conflict,
    Denied,
    Missing,
    Misunderstood,
    NoLeader,
    RegistryError,
    Rejected,
    ServerFault,
    TooLarge,
    TooManyConnections,
    Unreachable,
)
from meshsdk_registry.heartbeat import DRAINING, Event, Heartbeat, Held, Registered
from meshsdk_registry.index import MAX_WAIT, BackOff, BlockingQuery, listen_for
from meshsdk_registry.model import (
    AgentInfo,
    Answer,
    Check,
    Health,
    Instance,
    KeyValue,
    LocalService,
    Operation,
    Registration,
)
from meshsdk_registry.names import MAX_VALUE, check_key, check_prefix, check_registration, check_service
from meshsdk_registry.outage import Back, Lost
from meshsdk_registry.watch import (
    WAIT,
    Changed,
    watch_instances,
    watch_intentions,
    watch_keys,
    watch_leaf,
    watch_roots,
)

__all__ = [
    "DRAINING",
    "MAX_VALUE",
    "MAX_WAIT",
    "WAIT",
    "AgentInfo",
    "Answer",
    "Back",
    "BackOff",
    "BlockingQuery",
    "Changed",
    "Check",
    "Conflict",
    "Consul",
    "ConsulAddress",
    "Denied",
    "Event",
    "HeaderMatch",
    "Health",
    "Heartbeat",
    "Held",
    "Instance",
    "Intention",
    "KeyValue",
    "Leaf",
    "LocalService",
    "Lost",
    "Missing",
    "Misunderstood",
    "NoLeader",
    "Operation",
    "Permission",
    "Registered",
    "Registration",
    "RegistryError",
    "Rejected",
    "Root",
    "Roots",
    "ServerFault",
    "TooLarge",
    "TooManyConnections",
    "Unreachable",
    "check_key",
    "check_prefix",
    "check_registration",
    "check_service",
    "listen_for",
    "watch_instances",
    "watch_intentions",
    "watch_keys",
    "watch_leaf",
    "watch_roots",
]

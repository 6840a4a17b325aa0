"""The command line's door to Consul: one client from the environment's settings, and the policy documents in KV."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshsdk.config import load
from meshsdk.errors import PolicyError
from meshsdk.mesh import open_consul
from meshsdk.policy.document import Document, parse
from meshsdk_registry import Consul, KeyValue

__all__ = ["MESH_WIDE", "PREFIX", "Documents", "connect", "documents", "read"]

PREFIX = "mesh/policy/"
MESH_WIDE = "_mesh"


def connect() -> Consul:
    """Open a client by CONSUL_* and MESH_* variables; use it as an async context manager.

    Raises:
        ConfigError: a variable is wrong.
    """
    return open_consul(load({"service": "meshsdk-cli"}))


@dataclass(slots=True)
class Documents:
    """The policy documents in KV: those that can be used, and what is wrong with the others."""

    by_service: dict[str, Document | None] = field(default_factory=dict)
    indexes: dict[str, int] = field(default_factory=dict)
    mistakes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def version(self, service: str) -> str:
        """What a process that starts now would obey, such as `payments@41`; `defaults` without a document."""
        if service in self.mistakes:
            return "rejected"
        names = [name for name in (service, MESH_WIDE) if self.by_service.get(name) is not None]
        return "+".join(f"{name}@{self.indexes[name]}" for name in names) or "defaults"

    def problems(self, service: str) -> list[str]:
        """One line for each mistake in the service's document and in the mesh-wide one."""
        return [f"policy {name}: {line}" for name in (service, MESH_WIDE) for line in self.mistakes.get(name, ())]


async def documents(consul: Consul) -> Documents:
    """Read and parse every policy document."""
    found = Documents()
    for entry in (await consul.keys(PREFIX)).value:
        name = entry.key.removeprefix(PREFIX)
        if not name:
            continue
        found.indexes[name] = entry.modify_index
        try:
            found.by_service[name] = read(entry)
        except PolicyError as error:
            found.by_service[name] = None
            found.mistakes[name] = error.mistakes
    return found


def read(entry: KeyValue) -> Document:
    """Parse one key's value.

    Raises:
        PolicyError: the document has mistakes.
    """
    name = entry.key.removeprefix(PREFIX)
    return parse(entry.value or b"", entry.key, f"{name}@{entry.modify_index}")

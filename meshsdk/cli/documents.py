"""The policy documents in Consul's KV, judged as every process judges them: each alone, and together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshsdk.cli.consul import destination
from meshsdk.core.plan import Plan
from meshsdk.errors import ConfigError, PolicyError
from meshsdk.policy.document import Document, parse
from meshsdk.policy.effective import check, effective
from meshsdk_registry import Consul, KeyValue

__all__ = ["MESH_WIDE", "PREFIX", "Documents", "documents", "misfits", "read"]

PREFIX = "mesh/policy/"
MESH_WIDE = "_mesh"


@dataclass(slots=True)
class Documents:
    """All policy documents.

    Attributes:
        entries: the keys by the document's name.
        good: those without a mistake of their own.
        mistakes: what is wrong, by name: of a document itself, or between it and the mesh's.
        strays: names under the prefix that are no service's: nobody reads them.
    """

    entries: dict[str, KeyValue] = field(default_factory=dict)
    good: dict[str, Document] = field(default_factory=dict)
    mistakes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)

    @property
    def mesh(self) -> Document | None:
        """The mesh-wide document, if it is good."""
        return self.good.get(MESH_WIDE)

    def version(self, service: str) -> str:
        """What a process that starts now obeys, such as `payments@41+_mesh@7`; `defaults` without a document."""
        if service in self.mistakes:
            return "rejected"
        return "+".join(dict.fromkeys(self.label(name) for name in (service, MESH_WIDE) if name in self.good)) or (
            "defaults"
        )

    def plan(self, service: str, caller: str = "") -> Plan:
        """What a process that starts now obeys: documents with mistakes are left out, as it would leave them."""
        own = self.good.get(service) if service not in {MESH_WIDE, *self.mistakes} else None
        return effective(caller, service, self.mesh, own)

    def label(self, name: str) -> str:
        """A document's name with its index in KV, as plans and errors cite it."""
        return f"{name}@{self.entries[name].modify_index}"


async def documents(consul: Consul) -> Documents:
    """Read and judge every policy document."""
    found = Documents()
    for entry in (await consul.keys(PREFIX)).value:
        name = entry.key.removeprefix(PREFIX)
        if not name:  # the folder itself, as Consul's own UI makes one
            continue
        try:
            destination(name, (MESH_WIDE,))
            found.entries[name] = entry
            found.good[name] = read(entry)
        except ConfigError:
            found.strays.append(name)
        except PolicyError as error:
            found.mistakes[name] = error.mistakes
    found.mistakes |= misfits(found.mesh, found.good)
    return found


def misfits(mesh: Document | None, services: Mapping[str, Document]) -> dict[str, tuple[str, ...]]:
    """What does not fit between the mesh's document and the services', by service."""
    found = {}
    for name, document in services.items():
        if name == MESH_WIDE:
            continue
        try:
            check(mesh, document)
        except PolicyError as error:
            found[name] = error.mistakes
    return found


def read(entry: KeyValue) -> Document:
    """Parse one key's value.

    Raises:
        PolicyError: the document has mistakes.
    """
    name = entry.key.removeprefix(PREFIX)
    return parse(entry.value or b"", entry.key, f"{name}@{entry.modify_index}")

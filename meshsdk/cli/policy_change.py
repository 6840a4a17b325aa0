"""Changes of policy in Consul: judged over all that stands there, then written at once or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshsdk.cli.consul import connect
from meshsdk.cli.documents import MESH_WIDE, PREFIX, Documents, documents, misfits
from meshsdk.cli.policy_files import PolicyFile, by_service
from meshsdk.errors import ConfigError, MeshError, PolicyError
from meshsdk.policy.diff import Change, diff
from meshsdk.policy.document import Document
from meshsdk_registry import Conflict, Consul, Operation

__all__ = ["Applied", "Outdated", "apply", "changes", "delete"]

_MOST = 64
"""Operations of one transaction (Consul's `maxTxnOps`)."""


class Outdated(MeshError):
    """A document in KV changed between reading and writing."""


@dataclass(frozen=True, slots=True)
class Applied:
    """One document that was written.

    Attributes:
        replaced: the mistakes of what stood there before, which was in nobody's force.
    """

    service: str
    changes: tuple[Change, ...]
    replaced: tuple[str, ...] = ()


async def apply(files: Sequence[PolicyFile]) -> list[Applied]:
    """Put documents in force together.

    Raises:
        PolicyError: one of them, or a document that stands in Consul, would not fit over the mesh's.
        Outdated: somebody else wrote meanwhile; nothing was written.
    """
    if len(by_service(files)) > _MOST:
        raise ConfigError(f"{len(files)} files at once: Consul writes {_MOST} together; give fewer")
    async with connect() as consul:
        found = await documents(consul)
        new = {file.service: file.document for file in files}
        _refuse_misfits(found, found.good | new, {file.service: str(file.path) for file in files})
        applied = [_applied(file, found, new) for file in files]
        await _write(consul, files, found)
    return applied


async def delete(service: str) -> bool:
    """Take a document away; False if there is none.

    Raises:
        PolicyError: it is the mesh's, and other documents fit only over it.
        Outdated: somebody else wrote meanwhile; nothing was deleted.
    """
    async with connect() as consul:
        found = await documents(consul)
        entry = found.entries.get(service)
        if entry is None:
            return False
        left = {name: document for name, document in found.good.items() if name != service}
        _refuse_misfits(found, left, {})
        if not await consul.delete(entry.key, cas=entry.modify_index):
            raise _outdated(service)
        return True


def changes(found: Documents, file: PolicyFile) -> list[Change]:
    """What a file changes for callers, against what stands in Consul.

    Raises:
        PolicyError: it would not fit over the mesh's document.
    """
    _refuse_misfits(found, found.good | {file.service: file.document}, {file.service: str(file.path)})
    return _changes(found, file, found.mesh)


def _refuse_misfits(found: Documents, after: Mapping[str, Document], files: Mapping[str, str]) -> None:
    """Refuse what fits no more; what did not fit before is nobody's fault now, unless it is written again."""
    wrong = misfits(after.get(MESH_WIDE), after)
    own = [(name, lines) for name, lines in wrong.items() if name in files]
    if own:
        name, lines = own[0]
        raise PolicyError(f"{files[name]}, over {PREFIX}{MESH_WIDE}", lines)
    lost = {name: lines for name, lines in wrong.items() if name not in found.mistakes}
    if lost:
        source = files.get(MESH_WIDE, f"{PREFIX}{MESH_WIDE}, deleted")
        raise PolicyError(
            f"{source}: {', '.join(sorted(lost))} would no longer fit and fall back to earlier policy",
            [f"{PREFIX}{name}: {line}" for name, lines in sorted(lost.items()) for line in lines],
        )


def _applied(file: PolicyFile, found: Documents, new: Mapping[str, Document]) -> Applied:
    mesh = new.get(MESH_WIDE, found.mesh)
    return Applied(file.service, tuple(_changes(found, file, mesh)), found.mistakes.get(file.service, ()))


def _changes(found: Documents, file: PolicyFile, mesh: Document | None) -> list[Change]:
    """Against nothing where the document that stands there is rejected: it is in nobody's force."""
    before = found.good.get(file.service) if file.service not in found.mistakes else None
    if file.service == MESH_WIDE:
        return diff(before, file.document)
    return diff(before, file.document, mesh, mesh_before=found.mesh)


async def _write(consul: Consul, files: Sequence[PolicyFile], found: Documents) -> None:
    """One as a plain key, which may be larger than a transaction; several in one transaction."""
    indexes = {name: entry.modify_index for name, entry in found.entries.items()}
    if len(files) == 1:
        file = files[0]
        if not await consul.put(PREFIX + file.service, file.text, cas=indexes.get(file.service, 0)):
            raise _outdated(file.service)
        return
    steps = [Operation("cas", PREFIX + file.service, file.text, indexes.get(file.service, 0)) for file in files]
    try:
        await consul.txn(steps)
    except Conflict as error:
        raise _outdated(", ".join(file.service for file in files)) from error


def _outdated(names: str) -> Outdated:
    return Outdated(
        f"{PREFIX}{names} was changed by somebody else just now, nothing was written: "
        "look at `meshsdk policy diff`, then try again"
    )

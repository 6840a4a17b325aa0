"""What a new document changes, in effective values: what calls will see, not which lines moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

from meshsdk.policy.document import Document
from meshsdk.policy.effective import dump, effective

__all__ = ["Change", "diff", "flat"]


@dataclass(frozen=True, slots=True)
class Change:
    """One effective value that changes.

    Attributes:
        path: such as `retries.attempts`, or `from.checkout.retries.attempts` where only that caller sees it.
        before, after: as a document would write them.
    """

    path: str
    before: Any
    after: Any


def diff(
    before: Document | None,
    after: Document | None,
    mesh: Document | None = None,
    *,
    mesh_before: Document | EllipsisType | None = ...,
) -> list[Change]:
    """Compare two documents of one service, or two of the mesh's defaults, over `mesh`; None stands for no document.

    Callers with a part of their own are listed only where they see another change than all the others.

    Args:
        mesh_before: what `before` stood over, where the mesh's document changes at the same time.

    Raises:
        PolicyError: one of the documents does not fit over `mesh`.
    """
    over = (mesh if mesh_before is ... else mesh_before, mesh)
    general = _changes("", (before, after), over)
    callers = sorted({*(before.callers if before else ()), *(after.callers if after else ())})
    special = [
        Change(f"from.{caller}.{path}", *values)
        for caller in callers
        for path, values in _changes(caller, (before, after), over).items()
        if general.get(path) != values
    ]
    return [Change(path, *values) for path, values in general.items()] + special


def _changes(
    caller: str, documents: tuple[Document | None, ...], meshes: tuple[Document | None, ...]
) -> dict[str, tuple[Any, Any]]:
    old, new = (
        flat(dump(effective(caller, "the service", mesh, own))) for mesh, own in zip(meshes, documents, strict=True)
    )
    return {path: (old[path], value) for path, value in new.items() if old[path] != value}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their path, such as `retries.budget.ratio`."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return result

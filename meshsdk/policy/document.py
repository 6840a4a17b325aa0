"""A policy document that was found good, and the way there from the text in KV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshsdk.errors import PolicyError
from meshsdk.policy import mistakes
from meshsdk.policy.bounds import Layer, merge
from meshsdk.policy.egress import unheeded
from meshsdk.policy.reading import Mistake, read
from meshsdk.policy.sections import MAX_CALLERS, MeshDocument, Sections, ServiceDocument

__all__ = ["BUILT_IN", "Document", "is_mesh_wide", "parse"]

BUILT_IN = Layer("the built-in default", Sections.written_defaults())
"""What holds where nobody wrote anything."""


@dataclass(frozen=True, slots=True)
class Document:
    """A good document, as written.

    Attributes:
        source: where it is from, for messages, such as `mesh/policy/payments`.
        content: its sections without `version` and `from`, plain values; not to be changed.
        callers: the sections of `from` by caller.
        version_label: what plans made of it call it, such as `payments@41`.
    """

    source: str
    content: Mapping[str, Any]
    callers: Mapping[str, Mapping[str, Any]]
    version_label: str

    def layers(self, caller: str) -> list[Layer]:
        """What it says for one caller, later over earlier."""
        own = [Layer(self.source, self.content)]
        if caller in self.callers:
            own.append(Layer(self.source, self.callers[caller], f"from.{caller}."))
        return own


def is_mesh_wide(source: str) -> bool:
    """Whether a key or file of this name holds the defaults of the whole mesh: `mesh/policy/_mesh`, `_mesh.yaml`."""
    return source.rpartition("/")[2].partition(".")[0] == "_mesh"


def parse(text: bytes | str, source: str, version_label: str = "") -> Document:
    """Read a document and check all of it.

    Args:
        text: YAML or JSON, UTF-8, at most 512 KiB.
        source: the key or file, for messages; `…/_mesh` is checked as the mesh's defaults.
        version_label: what plans made of it call it; empty for the last part of `source`.

    Raises:
        PolicyError: with every mistake, each with its path, its line and what to write instead.
    """
    reading = read(text, source)
    if not isinstance(reading.value, dict):
        raise PolicyError(source, ["not keys and values; write a document that begins with `version: 1`"])
    mesh_wide = is_mesh_wide(source)
    document = _document(reading.value, source, version_label)
    misfits = _misfits(document, [BUILT_IN] if mesh_wide else [])
    if wrong := mistakes.find(MeshDocument if mesh_wide else ServiceDocument, reading, misfits):
        raise PolicyError(source, wrong)
    return document


def _document(value: Mapping[str, Any], source: str, version_label: str) -> Document:
    """The document as far as it has the right shape, which may not be checked yet."""
    content = {key: section for key, section in value.items() if key not in {"version", "from"}}
    callers = value.get("from")
    parts = (
        {name: part for name, part in callers.items() if isinstance(part, dict)} if isinstance(callers, dict) else {}
    )
    return Document(source, content, parts, version_label or source.rpartition("/")[2])


def _misfits(document: Document, below: list[Layer]) -> list[Mistake]:
    """Values beyond their bounds, as far as this document alone can tell."""
    found: dict[str, str] = {}
    for caller in ("", *list(document.callers)[:MAX_CALLERS]):
        layers = [*below, *document.layers(caller)]
        found |= {**dict(merge(layers)[1]), **dict(unheeded(layers))}
    return [(tuple(path.split(".")), why) for path, why in found.items()]

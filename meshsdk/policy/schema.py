"""The JSON Schema of policy documents, from the same fields that check them: completion and hints in editors.

What it cannot say, `parse` still checks: values that must fit into others, keys written twice.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from meshsdk.policy.section import ABSENT, Section
from meshsdk.policy.sections import MeshDocument, ServiceDocument

__all__ = ["schema"]

_Definitions = dict[str, dict[str, Any]]


def schema(*, mesh_wide: bool = False) -> dict[str, Any]:
    """The schema (draft 2020-12) of a service's document, or of the mesh's defaults in `mesh/policy/_mesh`."""
    definitions: _Definitions = {}
    document = _object(MeshDocument if mesh_wide else ServiceDocument, definitions)
    in_order = dict(sorted(definitions.items()))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": in_order, **document}


def _object(model: type[Section], definitions: _Definitions) -> dict[str, Any]:
    fields = model.described()
    must = [key for key, field in fields.items() if field["written"] is ABSENT and field["example"]]
    return {
        "title": model.__name__,
        "description": inspect.cleandoc(model.__doc__ or ""),
        "type": "object",
        "additionalProperties": False,
        "properties": {key: _property(key, field, definitions) for key, field in fields.items()},
        **({"required": must} if must else {}),
        **model.SCHEMA,
    }


def _property(key: str, field: Mapping[str, Any], definitions: _Definitions) -> dict[str, Any]:
    found: dict[str, Any] = _resolved(field["form"].schema, definitions)
    if field["form"].section is None:
        found = {"title": key.replace("_", " ").title(), **found}
    if field["written"] is not ABSENT:
        found["default"] = field["written"]
    return {**found, "description": field["description"]}


def _resolved(value: Any, definitions: _Definitions) -> Any:
    """A form's schema with names in the place of classes, whose definitions are added."""
    if isinstance(value, Mapping):
        return {key: _resolved(below, definitions) for key, below in value.items()}
    if not isinstance(value, type):
        return value
    if value.__name__ not in definitions:
        definitions[value.__name__] = {}  # known before its own parts are
        definitions[value.__name__] |= _object(value, definitions)
    return f"#/$defs/{value.__name__}"

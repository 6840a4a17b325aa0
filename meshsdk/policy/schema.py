"""The JSON Schema of policy documents, from the same models that check them: completion and hints in editors.

What it cannot say, `parse` still checks: values that must fit into others, keys written twice.
"""

from __future__ import annotations

from typing import Any

from meshsdk.policy.sections import MeshDocument, ServiceDocument

__all__ = ["schema"]


def schema(*, mesh_wide: bool = False) -> dict[str, Any]:
    """The schema (draft 2020-12) of a service's document, or of the mesh's defaults in `mesh/policy/_mesh`."""
    model = MeshDocument if mesh_wide else ServiceDocument
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}

"""The plan that is in force for one caller of one service: defaults, `_mesh`, the service's document, its `from`."""

from __future__ import annotations

from typing import Any

from meshsdk.core.plan import Plan
from meshsdk.errors import PolicyError
from meshsdk.policy.bounds import Layer, merge
from meshsdk.policy.circuit_breaker import CircuitBreaker
from meshsdk.policy.document import BUILT_IN, Document
from meshsdk.policy.limits import Limits
from meshsdk.policy.load_balancing import LoadBalancing
from meshsdk.policy.outlier_detection import OutlierDetection
from meshsdk.policy.retries import Retries
from meshsdk.policy.sections import Sections
from meshsdk.policy.telemetry import Telemetry
from meshsdk.policy.timeouts import Timeouts

__all__ = ["DEFAULTS", "dump", "effective"]


def effective(caller: str, service: str, mesh: Document | None, own: Document | None) -> Plan:
    """Merge what holds for calls of `caller` to `service`; later wins, mappings key by key, all else whole.

    Args:
        caller: the calling service; it chooses the `from` section of `own`.
        service: the called service, for messages.
        mesh: the document of `mesh/policy/_mesh`.
        own: the document of `mesh/policy/<service>`.

    Returns:
        The plan; its version names every document in it, such as `payments@41+_mesh@7`, or `defaults`.

    Raises:
        PolicyError: a value of a document exceeds a bound that an earlier document set (`bounds` has the rule); its
            `source` is that document's. Without that document the others still merge.
    """
    layers = [BUILT_IN, *_mesh_layers(mesh), *(own.layers(caller) if own else [])]
    merged, wrong = merge(layers)
    if wrong:
        source = own.source if own else layers[-1].name
        raise PolicyError(source, [f"{path}: {why} (calls of {caller} to {service})" for path, why in wrong])
    return Sections.model_validate(merged).plan(_version(mesh, own))


def dump(plan: Plan) -> dict[str, Any]:
    """A plan as a document would write it, every value given; parsing it gives the same plan."""
    return {
        "version": 1,
        "timeouts": Timeouts.dump(plan.timeouts),
        "retries": Retries.dump(plan.retries),
        "circuit_breaker": CircuitBreaker.dump(plan.breaker),
        "limits": Limits.dump(plan.limits),
        "outlier_detection": OutlierDetection.dump(plan.outlier),
        "load_balancing": LoadBalancing.dump(plan.balancing),
        "telemetry": Telemetry.dump(plan.access_log),
    }


def _mesh_layers(mesh: Document | None) -> list[Layer]:
    if mesh is None:
        return []
    if mesh.callers:
        raise PolicyError(
            mesh.source, ["from: not taken in the defaults of the mesh; move it to the service's document"]
        )
    return mesh.layers("")


def _version(mesh: Document | None, own: Document | None) -> str:
    return "+".join(document.version_label for document in (own, mesh) if document) or "defaults"


DEFAULTS: Plan = effective("", "", None, None)
"""The plan without any document."""

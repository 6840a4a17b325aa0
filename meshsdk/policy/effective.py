"""The plan that is in force for one caller of one service: defaults, `_mesh`, the service's document, its `from`."""

from __future__ import annotations

from typing import Any

from meshsdk.core.plan import Plan
from meshsdk.errors import PolicyError
from meshsdk.policy.authentication import Authentication
from meshsdk.policy.authorization import Authorization, joined
from meshsdk.policy.bounds import merge
from meshsdk.policy.circuit_breaker import CircuitBreaker
from meshsdk.policy.document import BUILT_IN, Document
from meshsdk.policy.egress import Egress
from meshsdk.policy.limits import Limits
from meshsdk.policy.load_balancing import LoadBalancing
from meshsdk.policy.mistakes import told
from meshsdk.policy.outlier_detection import OutlierDetection
from meshsdk.policy.reading import path_text
from meshsdk.policy.refused import OF_SERVICES
from meshsdk.policy.retries import Retries
from meshsdk.policy.section import Wrong, take
from meshsdk.policy.sections import MeshCaller, Sections
from meshsdk.policy.telemetry import Telemetry
from meshsdk.policy.timeouts import Timeouts
from meshsdk.policy.tls import Tls

__all__ = ["DEFAULTS", "check", "dump", "effective"]


def effective(caller: str, service: str, mesh: Document | None, own: Document | None) -> Plan:
    """Merge what holds for calls of `caller` to `service`; later wins, mappings key by key, all else whole;
    the rules of `authorization` are joined.

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
    merged, wrong = _merged(caller, mesh, own)
    if wrong:
        raise _refusal(mesh, own, [f"{path}: {why} (calls of {caller} to {service})" for path, why in wrong])
    bad: list[Wrong] = []
    built_in = BUILT_IN.content
    given = {key: value for key, value in merged.items() if value is not built_in[key]}  # the others need no reading
    sections = take(Sections, given, (), bad)
    if sections is None:
        raise _refusal(mesh, own, [f"{path_text(mistake.path)}: {told(mistake)}" for mistake in bad])
    return sections.plan(_version(mesh, own))


def check(mesh: Document | None, own: Document | None) -> None:
    """Whether documents that are good by themselves fit together, for every caller.

    Raises:
        PolicyError: with every value that exceeds a bound of an earlier document.
    """
    found: dict[str, str] = {}
    for caller in ("", *(own.callers if own else ())):
        found |= dict(_merged(caller, mesh, own)[1])
    if found:
        raise _refusal(mesh, own, [f"{path}: {why}" for path, why in found.items()])


def dump(plan: Plan) -> dict[str, Any]:
    """A plan as documents would write it, every value given; parsing it gives the same plan.

    `egress` is what `_mesh` would write; all else may stand in a service's document.
    """
    return {
        "version": 1,
        "timeouts": Timeouts.dump(plan.timeouts),
        "retries": Retries.dump(plan.retries),
        "circuit_breaker": CircuitBreaker.dump(plan.breaker),
        "limits": Limits.dump(plan.limits),
        "outlier_detection": OutlierDetection.dump(plan.outlier),
        "load_balancing": LoadBalancing.dump(plan.balancing),
        "telemetry": Telemetry.dump(plan.access_log),
        "authorization": Authorization.dump(plan.access),
        "tls": Tls.dump(plan.tls),
        "authentication": Authentication.dump(plan.jwt),
        "egress": Egress.dump(plan.egress),
    }


def _merged(caller: str, mesh: Document | None, own: Document | None) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    if mesh:
        _check_callers(mesh)
    merged, wrong = merge([BUILT_IN, *(mesh.layers(caller) if mesh else ()), *(own.layers(caller) if own else ())])
    rules = joined(mesh.content if mesh else {}, own.content if own else {})
    return {**merged, "authorization": {**merged["authorization"], "rules": rules}}, wrong


def _check_callers(mesh: Document) -> None:
    """As `parse` did, unless the document was made by hand."""
    given = {key for part in mesh.callers.values() for key in part}
    if foreign := sorted(given - MeshCaller.fields().keys()):
        raise PolicyError(mesh.source, [f"from.<caller>.{key}: {OF_SERVICES}" for key in foreign])


def _refusal(mesh: Document | None, own: Document | None, mistakes: list[str]) -> PolicyError:
    """Against the last document: of those before it, each was found to fit over what it stands on."""
    return PolicyError(next(document.source for document in (own, mesh) if document), mistakes)


def _version(mesh: Document | None, own: Document | None) -> str:
    return "+".join(document.version_label for document in (own, mesh) if document) or "defaults"


DEFAULTS: Plan = effective("", "", None, None)
"""The plan without any document."""

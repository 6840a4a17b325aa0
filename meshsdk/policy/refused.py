"""Names that mean something but are not taken: said so by name, because "unknown key" would be a lie."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["NOT_ENFORCED", "OF_SERVICES", "REFUSED", "UNENFORCED_CONDITIONS"]

NOT_ENFORCED = "not enforced by this version of meshsdk; remove it"

UNENFORCED_CONDITIONS = frozenset({"unavailable", "5xx", "gateway-error", "refused-stream", "retriable-4xx"})
"""Conditions of `retries.on`: gRPC's are not seen yet, Envoy's groups are written as status codes here."""

_UNENFORCED = (
    "health_check",
    "subsets",
    "routes",
    "fault",
    "rate_limit",
    "concurrency",
    "retries.hedge",
    "load_balancing.slow_start",
    "load_balancing.locality",
    "load_balancing.hash_on",
    "telemetry.trace_sample",
    "telemetry.headers",
)

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(_UNENFORCED, NOT_ENFORCED),
    **dict.fromkeys(
        ("authorization", "tls", "authentication"),
        "is the service's own and the same for all callers, so it does not stand in `from`; move it to the top of the"
        " document",
    ),
    "egress": (
        "stands in mesh/policy/_mesh only, for one caller under `from` there, so that no service lifts it for itself;"
        " move it there"
    ),
    "from": (
        "stands only at the top of a service's own document, because what holds for every service holds for all its"
        " callers; move it to mesh/policy/<service>"
    ),
}
"""By path within a document (or within a caller's part of `from`): why the key is refused."""

OF_SERVICES = (
    "`from` in `_mesh` has `egress` only, because what holds for every service holds for all its callers; move it to"
    " mesh/policy/<service>"
)
"""Why a section that callers may have in a service's document is refused in the mesh's."""

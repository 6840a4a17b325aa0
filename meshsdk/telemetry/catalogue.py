"""Every metric there is, with its meaning: the stable names of OpenTelemetry's HTTP conventions, and `mesh.*`."""

from __future__ import annotations

from meshsdk.telemetry.instruments import Metric

__all__ = [
    "ACTIVE_REQUESTS",
    "ALL",
    "ATTEMPTS",
    "BREAKER_MOVES",
    "BREAKER_STATE",
    "CALLS_REFUSED",
    "CALL_DURATION",
    "EJECTIONS",
    "GAUGES",
    "OVERFLOW",
    "REQUESTS_DENIED",
    "REQUESTS_REFUSED",
    "REQUEST_DURATION",
    "RETURNS",
]

_SERVICE = ("mesh.service",)
_WAY = (*_SERVICE, "mesh.direction")  # `outbound` or `inbound`

CALL_DURATION = Metric(
    "http.client.request.duration",
    "histogram",
    "s",
    "Time from the start of a call to the end of its reply's body, all tries and pauses included.",
    (*_SERVICE, "http.request.method", "http.response.status_code", "error.type"),
)
ATTEMPTS = Metric(
    "mesh.client.attempts",
    "counter",
    "{attempt}",
    "Tries on the wire, by what came of them and what was decided; a call counts once however many it took.",
    (*_SERVICE, "mesh.outcome", "mesh.decision"),
)
CALLS_REFUSED = Metric(
    "mesh.client.refused",
    "counter",
    "{call}",
    "Calls the mesh itself refused, by response flag: UH, UO, NR or RL.",
    (*_SERVICE, "mesh.flag"),
)
EJECTIONS = Metric(
    "mesh.client.ejections",
    "counter",
    "{ejection}",
    "Endpoints set aside by outlier detection.",
    (*_SERVICE, "mesh.reason"),
)
RETURNS = Metric("mesh.client.returns", "counter", "{return}", "Endpoints that came back after an ejection.", _SERVICE)
BREAKER_MOVES = Metric(
    "mesh.client.breaker.transitions",
    "counter",
    "{transition}",
    "Changes of a service's breaker, by the state it changed to.",
    (*_SERVICE, "mesh.state"),
)
BREAKER_STATE = Metric(
    "mesh.client.breaker.state",
    "gauge",
    "1",
    "State of a service's breaker once it has moved: 0 closed, 1 half-open, 2 open.",
    _SERVICE,
    merge="max",
)
REQUEST_DURATION = Metric(
    "http.server.request.duration",
    "histogram",
    "s",
    "Time from a request's head to the end of its reply.",
    ("http.request.method", "http.route", "http.response.status_code", "error.type"),
)
ACTIVE_REQUESTS = Metric(
    "http.server.active_requests", "gauge", "{request}", "Requests being served now.", ("http.request.method",)
)
REQUESTS_REFUSED = Metric(
    "mesh.server.refused",
    "counter",
    "{request}",
    "Requests the mesh refused to serve, by response flag.",
    ("mesh.flag",),
)
REQUESTS_DENIED = Metric(
    "mesh.server.denied",
    "counter",
    "{request}",
    "Requests that an access rule refused (`denied`), and those on which one on trial would have decided otherwise.",
    ("mesh.rule", "mesh.decision"),
)
OVERFLOW = Metric(
    "mesh.metrics.overflow",
    "counter",
    "{measurement}",
    "Measurements counted under `other` because their metric had no room for one more series.",
    ("mesh.metric",),
)

# Read when somebody collects, from whoever registered with `Metrics.observe_gauges`.
GAUGES = {
    metric.name: metric
    for metric in (
        Metric(
            "mesh.client.endpoints",
            "gauge",
            "{endpoint}",
            "Known endpoints of a service by state, such as `healthy`, `unhealthy`, `ejected` or `limbo`.",
            (*_SERVICE, "mesh.state"),
            merge="max",  # every worker sees the same instances
        ),
        Metric("mesh.client.in_flight", "gauge", "{call}", "Calls that hold a slot of an endpoint now.", _SERVICE),
        Metric("mesh.client.retry_budget", "gauge", "{retry}", "Retries the budget would allow now.", _SERVICE),
        Metric(
            "mesh.sidecar.refused",
            "counter",
            "{request}",
            "Requests that a sidecar's listener did not carry, by reason.",
            ("mesh.listener", "mesh.reason"),
        ),
        Metric("mesh.tcp.connections", "gauge", "{connection}", "TCP connections that are carried now.", _WAY),
        Metric("mesh.tcp.sent", "counter", "By", "Bytes of TCP connections towards the called service.", _WAY),
        Metric("mesh.tcp.received", "counter", "By", "Bytes of TCP connections back to the caller.", _WAY),
        Metric(
            "mesh.registry.staleness",
            "gauge",
            "s",
            "Age of what is known of a service, since the registry last confirmed it.",
            _SERVICE,
            merge="max",
        ),
        Metric(
            "mesh.registry.disconnected",
            "gauge",
            "1",
            "1 while the registry cannot be asked about a service, else 0.",
            _SERVICE,
            merge="max",
        ),
        Metric(
            "mesh.server.unreadable_timeouts",
            "counter",
            "{request}",
            "Requests whose deadline header could not be read; they were served without a deadline.",
            (),
        ),
        Metric(
            "mesh.policy.rejected",
            "gauge",
            "1",
            "1 while the newest policy document of a service is refused and an older one is in force, else 0.",
            _SERVICE,
            merge="max",
        ),
        Metric(
            "mesh.identity.expiry",
            "gauge",
            "s",
            "Time until the certificate in force expires; below 0 once it has.",
            (),
            merge="min",
        ),
        Metric(
            "mesh.identity.renewals",
            "counter",
            "{renewal}",
            "Certificates and sets of roots put in force, the first one included.",
            (),
        ),
        Metric(
            "mesh.identity.failures",
            "counter",
            "{failure}",
            "Renewals that failed: `refused`, what was given cannot be used; `away`, who gives it cannot be asked.",
            ("mesh.reason",),
        ),
        Metric(
            "mesh.identity.handshake_failures",
            "counter",
            "{handshake}",
            "TLS handshakes of callers that were refused or broke.",
            (),
        ),
    )
}

ALL = (
    CALL_DURATION,
    ATTEMPTS,
    CALLS_REFUSED,
    EJECTIONS,
    RETURNS,
    BREAKER_MOVES,
    BREAKER_STATE,
    REQUEST_DURATION,
    ACTIVE_REQUESTS,
    REQUESTS_REFUSED,
    REQUESTS_DENIED,
    OVERFLOW,
    *GAUGES.values(),
)

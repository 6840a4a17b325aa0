"""What a server tells telemetry of the requests it serves: the counterpart of the core's events."""

from __future__ import annotations

from dataclasses import dataclass

from meshsdk.core.value import Value

__all__ = ["RequestEnded", "RequestStarted"]


@dataclass(slots=True, init=False)
class RequestStarted(Value):
    """A request's head is here; exactly one `RequestEnded` with the same method follows."""

    method: str

    def __init__(self, method: str) -> None:
        self.method = method


@dataclass(slots=True, init=False)
class RequestEnded(Value):
    """A request was served, refused, or its caller went away.

    Attributes:
        path: without the query; for the log line only.
        route: the matched template, such as `/orders/{id}`; empty where none matched. Never a raw path.
        status: what was sent, None where nothing was.
        seconds: from the request's head to the end of the reply.
        flag: a response flag where the mesh answered for the app (`UT`, `UO`, `RL`, `UAEX` for a caller that may not do
            this) or the caller left (`DC`).
        error_type: the exception a handler let out, as `module.Name`; empty otherwise.
        refused: the app never saw it.
        peer: the caller's verified SPIFFE id; empty without one.
        client: the caller's network address; empty where unknown.
        access_log: `off`, `errors` or `all`.
        trace_id: of the request's span (`ServerSpan.trace_id`); empty where it belongs to no trace, and where
            `access_log` asks for no line.
        rule: the access rule that refused the request; empty where none did.
        reason: why, in one of few sentences.
        audited: the access rule on trial that would have decided otherwise; empty where none would.
    """

    method: str
    path: str
    route: str
    status: int | None
    seconds: float
    flag: str = ""
    error_type: str = ""
    refused: bool = False
    peer: str = ""
    client: str = ""
    access_log: str = "off"
    trace_id: str = ""
    rule: str = ""
    reason: str = ""
    audited: str = ""

    def __init__(  # noqa: PLR0917 - written out to be compiled (decision 15)
        self,
        method: str,
        path: str,
        route: str,
        status: int | None,
        seconds: float,
        flag: str = "",
        error_type: str = "",
        refused: bool = False,
        peer: str = "",
        client: str = "",
        access_log: str = "off",
        trace_id: str = "",
        rule: str = "",
        reason: str = "",
        audited: str = "",
    ) -> None:
        self.method = method
        self.path = path
        self.route = route
        self.status = status
        self.seconds = seconds
        self.flag = flag
        self.error_type = error_type
        self.refused = refused
        self.peer = peer
        self.client = client
        self.access_log = access_log
        self.trace_id = trace_id
        self.rule = rule
        self.reason = reason
        self.audited = audited

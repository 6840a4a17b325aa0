"""One incoming request, from admission to its end: what both adapters share.

Rule 1: `admit` never fails. A header nobody can read costs the caller nothing but that header. Deadlines are taken
from whoever may call: in strict mode that is nobody without a verified identity.
Rule 2: a request that was admitted is ended exactly once, whatever the application, the server or the caller does.
Rule 3: a request ends with the last byte of its reply, not with the return of the handler: what a handler does
afterwards (background tasks) is no longer bounded by the caller's deadline.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final

from meshsdk.core.access import Decision
from meshsdk.core.tokens import BadToken
from meshsdk.identity.spiffe import SpiffeId
from meshsdk.server.answers import UNVERIFIED, Answer, denied, expired
from meshsdk.server.bearer import challenge
from meshsdk.server.deadline import ENVOY_HEADER, GRPC_HEADER, Timeout, read_timeout
from meshsdk.server.forwarded import SPELLINGS, element
from meshsdk.server.guard import CONNECTION, STRICT, Guard
from meshsdk.telemetry.access_log import is_failure
from meshsdk.telemetry.context import Inbound
from meshsdk.telemetry.requests import RequestEnded, RequestStarted
from meshsdk.telemetry.tracing import ServerSpan, Tracing
from meshsdk.telemetry.unrecorded import NO_REQUEST

__all__ = ["Intake", "Page", "RequestSink", "ServedRequest"]

log = logging.getLogger("meshsdk.server")

Headers = Sequence[tuple[bytes, bytes]]
Page = Callable[[], "Answer | Future[Answer]"]
RequestSink = Callable[[RequestStarted | RequestEnded], None]

_TIMEOUT_HEADERS: Final = frozenset((ENVOY_HEADER, GRPC_HEADER))
_READ: Final = _TIMEOUT_HEADERS | SPELLINGS


class ServedRequest:
    """A request that was admitted and has not ended.

    Attributes:
        inbound: what outgoing calls inherit; belongs into `meshsdk.telemetry.context.current`.
        refusal: the reply to give instead of asking the application; None for an ordinary request.
        route: the route's template, set by the adapter when the framework knows it.
        status: the status that was sent; None before that.
        flag: Envoy's response flag, set by who knows it: `UT` deadline over, `DC` the caller or the server broke off,
            `UAEX` the caller may not do this.
        forged: the caller sent a header of its own about its certificate; the application must not see it.
        certificate: what the application is to be told of the caller's certificate instead; None for nothing.
    """

    __slots__ = (
        "_client",
        "_intake",
        "_span",
        "_started",
        "audited",
        "certificate",
        "flag",
        "forged",
        "inbound",
        "method",
        "path",
        "reason",
        "refusal",
        "route",
        "rule",
        "status",
        "timeout",
    )

    def __init__(
        self,
        intake: Intake,
        span: ServerSpan,
        inbound: Inbound,
        *,
        method: str,
        path: str,
        client: str,
        timeout: Timeout | None,
        started: float,
    ) -> None:
        self._intake = intake
        self._span = span
        self._client = client
        self._started = started
        self.inbound = inbound
        self.method = method
        self.path = path
        self.timeout = timeout
        self.refusal: Answer | None = None
        self.forged = False
        self.certificate: bytes | None = None
        self.rule = self.reason = self.audited = ""
        self.route = ""
        self.status: int | None = None
        self.flag = ""

    @property
    def ended(self) -> bool:
        """The reply is out, or given up."""
        return self.inbound.ended

    def end(self, error: BaseException | None = None) -> None:
        """Settle the request; the second and later calls do nothing.

        Args:
            error: what the application raised, or what broke the reply off.
        """
        if self.inbound.ended:
            return
        self.inbound.ended = True
        if self.inbound.denied:
            self.flag, self.rule, self.reason = "UAEX", self.inbound.denied, "the code lets in others only"
        if self.status is None and error is not None and not self.flag:
            self.status = 500  # what servers send for an application that raised
        if self.route:
            self._span.set_route(self.route)
        self._span.end(self.status, error)
        self._intake.settle(self, self._event(error))

    def _event(self, error: BaseException | None) -> RequestEnded:
        access_log = self._intake.access_log()
        told = access_log == "all" or (
            access_log != "off" and (self.audited != "" or is_failure(self.status, self.flag))
        )
        return RequestEnded(
            self.method,
            self.path,
            self.route,
            self.status,
            self._intake.clock() - self._started,
            self.flag,
            "" if error is None or self.flag else _name(error),
            self.refusal is not None,
            self.inbound.peer or "",
            self._client,
            access_log,
            self._span.trace_id if told else "",
            self.rule,
            self.reason,
            self.audited,
        )


class Intake:
    """Where requests come in: admits them, knows which are in flight and tells telemetry.

    Args:
        clock: `time.monotonic` or one that agrees with it: deadlines are handed on to outgoing calls.
        tracing: begins spans.
        sink: told of every request's start and end.
        pages: paths that the middleware answers itself.
        seen: called for every request; tells the process's life that it serves.
        closing: whether connections are to end with their reply, because the process is about to stop.
        access_log: the setting in force for served requests: `off`, `errors` or `all`.
        guard: who may pass; None lets everybody.
        explain: whether a refused caller is told which rule refused it.
        own_id: our own SPIFFE id, for the header about the caller's certificate; None sends none.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        tracing: Tracing,
        sink: RequestSink,
        pages: Mapping[str, Page] | None = None,
        seen: Callable[[], None] = lambda: None,
        closing: Callable[[], bool] = lambda: False,
        access_log: Callable[[], str] = lambda: "off",
        guard: Guard | None = None,
        explain: bool = False,
        own_id: Callable[[], str] | None = None,
    ) -> None:
        self.clock = clock
        self.pages: Mapping[str, Page] = pages or {}
        self.seen = seen
        self.closing = closing
        self.access_log = access_log
        self.unreadable_timeouts = 0
        self._guard = guard
        self._explain = explain
        self._own_id = own_id
        self._tracing = tracing
        self._sink = sink
        # A set: add and discard are atomic, so that threads need no lock to count (`x += 1` would).
        self._open: set[ServedRequest] = set()

    @property
    def in_flight(self) -> int:
        """Requests that were admitted and have not ended."""
        return len(self._open)

    def admit(
        self,
        method: str,
        path: str,
        headers: Headers,
        *,
        scheme: str = "http",
        server: tuple[str, int | None] | None = None,
        client: str = "",
        peer: SpiffeId | None = None,
        target: bytes | str | None = None,
        routed: str = "",
    ) -> ServedRequest:
        """Take a request in.

        Args:
            headers: names in small letters.
            server: address and port the request came to, None where unknown.
            client: the caller's network address.
            peer: the caller's verified SPIFFE id.
            target: the request target as received, for access rules; None where the server does not keep it.
            routed: the path without the prefix that is taken off before the application routes it, for access rules;
                empty where none is.
        """
        started = self.clock()
        self.seen()
        self._sink(RequestStarted(method))
        host, port = server or ("", None)
        span = self._tracing.begin_request(headers, method, path, scheme=scheme, host=host, port=port, client=client)
        identity = None if peer is None else str(peer)
        if identity is not None:
            span.set_peer(identity)
        named = [pair for pair in headers if pair[0] in _READ]
        timeout = self._timeout(named) if named else None
        deadline = None if timeout is None or timeout.seconds is None else started + timeout.seconds
        inbound = Inbound(deadline, None, identity, span=span)
        request = ServedRequest(
            self, span, inbound, method=method, path=path, client=client, timeout=timeout, started=started
        )
        if timeout is not None and timeout.seconds == 0:
            request.refusal, request.flag = expired(0.0, timeout.header), "UT"
        if self._guard is not None:
            decision = self._guard.judge(identity, method, path, target, headers, routed=routed)
            if decision is not None:
                self._obey(decision, request)
            if request.refusal is None:
                self._authenticate(self._guard, request, target, headers, routed)
        if named:
            request.forged = any(pair[0] in SPELLINGS for pair in named)
        if self._own_id is not None and identity is not None:
            request.certificate = element(self._own_id(), identity)
        self._open.add(request)
        return request

    def admit_connection(self, *, client: str = "", peer: SpiffeId | None = None) -> ServedRequest:
        """Take a connection in whose requests nobody reads, as of plain TCP; it is one request, of the method TCP.

        It has no deadline, no trace and no token. Args as of `admit`.
        """
        self.seen()
        self._sink(RequestStarted(CONNECTION))
        identity = None if peer is None else str(peer)
        inbound, started = Inbound(None, None, identity), self.clock()
        request = ServedRequest(
            self, NO_REQUEST, inbound, method=CONNECTION, path="", client=client, timeout=None, started=started
        )
        decision = None if self._guard is None else self._guard.judge_connection(identity)
        if decision is not None:
            self._obey(decision, request)
        self._open.add(request)
        return request

    def _obey(self, decision: Decision, request: ServedRequest) -> None:
        request.audited = decision.audited or ""
        if decision.allowed:
            return
        request.flag, request.rule, request.reason = "UAEX", decision.rule, decision.reason
        if decision.rule == STRICT:
            request.refusal = Answer(403, f"access denied: {UNVERIFIED}\n".encode())
        else:
            request.refusal = denied(decision, request.inbound.peer, explain=self._explain)

    def _authenticate(
        self, guard: Guard, request: ServedRequest, target: bytes | str | None, headers: Headers, routed: str
    ) -> None:
        try:
            request.inbound.claims = guard.claims(request.method, request.path, target, headers, routed=routed)
        except BadToken as refused:
            decision = refused.decision
            request.flag, request.rule, request.reason = "UAEX", decision.rule, decision.reason
            request.refusal = challenge(refused)

    def settle(self, request: ServedRequest, event: RequestEnded) -> None:
        """Take a request out and tell of its end; `ServedRequest.end` calls this once."""
        self._open.discard(request)
        self._sink(event)

    def _timeout(self, named: Headers) -> Timeout:
        timeout = read_timeout(pair for pair in named if pair[0] in _TIMEOUT_HEADERS)
        for junk in timeout.junk:
            self.unreadable_timeouts += 1
            log.debug("timeout header ignored, it is not a number of milliseconds or a grpc-timeout: %s", junk)
        return timeout


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"

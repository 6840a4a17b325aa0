"""Recorded spans of requests being served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context, attach, get_current
from opentelemetry.trace import Span, SpanKind

from meshsdk.telemetry.carrier import continued, parent_in
from meshsdk.telemetry.conventions import Attributes, method_attributes, settle, span_word

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from meshsdk.telemetry.propagate import TraceContext

__all__ = ["EnrichedRequest", "RecordedRequest", "Served", "begin_request"]

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class Served:
    """The facts of a request that its span tells."""

    headers: Headers
    method: str
    path: str
    scheme: str
    host: str
    port: int | None
    client: str

    def attributes(self) -> Attributes:
        """Attributes known at the start, where samplers can see them."""
        facts: dict[str, str | int | None] = {
            **method_attributes(self.method),
            "url.path": self.path,
            "url.scheme": self.scheme,
            "server.address": self.host,
            "server.port": self.port,
            "client.address": self.client,
            "user_agent.original": _first(self.headers, b"user-agent"),
        }
        return {key: value for key, value in facts.items() if value}


def begin_request(tracer: Tracer, served: Served, inbound: TraceContext | None) -> RecordedRequest | EnrichedRequest:
    """Begin a SERVER span and make it current, or enrich the one another instrumentation already opened."""
    present = trace.get_current_span()
    if _is_for_the_same_request(present, inbound):
        return EnrichedRequest(present, inbound)
    parent = parent_in(served.headers)
    span = tracer.start_span(span_word(served.method), parent, SpanKind.SERVER, served.attributes())
    return RecordedRequest(span, trace.set_span_in_context(span, parent), served.method, inbound)


def _is_for_the_same_request(present: Span, inbound: TraceContext | None) -> bool:
    """A SERVER span that is open here and began from the same headers, unlike that of a caller in this very process."""
    if not present.is_recording() or getattr(present, "kind", None) is not SpanKind.SERVER:
        return False
    if inbound is None or inbound.parent is None:
        return True
    parent = getattr(present, "parent", None)
    return parent is not None and parent.span_id == int(inbound.parent.parent_id, 16)


class EnrichedRequest:
    """Another instrumentation's SERVER span, told what only the mesh knows; its owner ends it."""

    __slots__ = ("_span", "inbound_trace")

    def __init__(self, span: Span, inbound: TraceContext | None) -> None:
        self._span = span
        self.inbound_trace = continued(span, inbound)

    @property
    def trace_id(self) -> str:
        """The trace the span belongs to."""
        return self.inbound_trace.trace_id

    def set_route(self, route: str) -> None:
        """The owner names its span; two names would fight."""

    def set_peer(self, spiffe_id: str) -> None:
        """Note the verified identity of the caller."""
        self._span.set_attribute("mesh.peer", spiffe_id)

    def end(self, status: int | None, error: BaseException | None = None) -> None:
        """Its owner ends it."""


class RecordedRequest:
    """A SERVER span of our own, current until it ends."""

    __slots__ = ("_before", "_ended", "_here", "_method", "_span", "inbound_trace")

    def __init__(self, span: Span, here: Context, method: str, inbound: TraceContext | None) -> None:
        self._span = span
        self._here = here
        self._method = method
        self._ended = False
        self._before = get_current()
        self.inbound_trace = continued(span, inbound)
        attach(here)

    @property
    def trace_id(self) -> str:
        """The trace the span belongs to."""
        return self.inbound_trace.trace_id

    def set_route(self, route: str) -> None:
        """Name the matched route template, and the span after it."""
        self._span.set_attribute("http.route", route)
        self._span.update_name(f"{span_word(self._method)} {route}")

    def set_peer(self, spiffe_id: str) -> None:
        """Note the verified identity of the caller."""
        self._span.set_attribute("mesh.peer", spiffe_id)

    def end(self, status: int | None, error: BaseException | None = None) -> None:
        """Say how it went and put back what was current before; a second end does nothing."""
        if self._ended:
            return
        self._ended = True
        # Put back what was there by attaching it: detaching a token fails in any context but the one that made it.
        # Elsewhere (a body closed by another thread) there is nothing of ours to take away.
        if get_current() is self._here:
            attach(self._before)
        settle(self._span, status, error, blame_from=500)


def _first(headers: Headers, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in headers if name.lower() == wanted), "")

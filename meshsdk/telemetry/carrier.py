"""Between HTTP headers and OpenTelemetry's contexts."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry import propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, get_current
from opentelemetry.propagators.textmap import Getter, Setter
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, TraceState

from meshsdk.telemetry.context import current
from meshsdk.telemetry.propagate import TraceContext, TraceParent, parse_tracestate

__all__ = ["continued", "headers_of", "parent_here", "parent_in"]

Headers = Sequence[tuple[bytes, bytes]]
Carrier = list[tuple[bytes, bytes]]


def parent_here() -> Context:
    """The context that a call belongs to: the current span's or, without one, that of the request being served."""
    here = get_current()
    if trace.get_current_span(here).get_span_context().is_valid:
        return here
    inbound = current.get()
    return here if inbound is None or inbound.trace is None else _context_of(inbound.trace, here)


def _context_of(inbound: TraceContext, here: Context) -> Context:
    """An OpenTelemetry context that continues `inbound`; not by the global propagator, which may know only B3."""
    if inbound.baggage:
        here = _BAGGAGE.extract({"baggage": [inbound.baggage]}, here, _GETTER)
    if inbound.parent is None:
        return here
    trace_id, span_id = int(inbound.parent.trace_id, 16), int(inbound.parent.parent_id, 16)
    state = TraceState(parse_tracestate(inbound.tracestate) or ())
    came = SpanContext(
        trace_id, span_id, is_remote=True, trace_flags=TraceFlags(inbound.parent.flags), trace_state=state
    )
    return trace.set_span_in_context(NonRecordingSpan(came), here)


def continued(span: Span, inbound: TraceContext | None) -> TraceContext:
    """The trace as `span` continues it, with the baggage that came in."""
    here = span.get_span_context()
    parent = TraceParent(f"{here.trace_id:032x}", f"{here.span_id:016x}", int(here.trace_flags))
    return TraceContext(parent, here.trace_state.to_header(), inbound.baggage if inbound else "")


def parent_in(headers: Headers) -> Context:
    """The context that a request's headers carry, by the app's global propagator; nothing else is in it."""
    return propagate.extract(_by_name(headers), Context(), _GETTER)


def headers_of(context: Context) -> Carrier:
    """What the app's global propagator writes for a context."""
    headers: Carrier = []
    propagate.inject(headers, context, _SETTER)
    return headers


def _by_name(headers: Headers) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


class _HeaderGetter(Getter[dict[str, list[str]]]):
    def get(self, carrier: dict[str, list[str]], key: str) -> list[str] | None:
        return carrier.get(key.lower())

    def keys(self, carrier: dict[str, list[str]]) -> list[str]:
        return list(carrier)


class _HeaderSetter(Setter[Carrier]):
    def set(self, carrier: Carrier, key: str, value: str) -> None:
        carrier.append((key.lower().encode("latin-1"), value.encode("latin-1")))


_BAGGAGE = W3CBaggagePropagator()
_GETTER = _HeaderGetter()
_SETTER = _HeaderSetter()

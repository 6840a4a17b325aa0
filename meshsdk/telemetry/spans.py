"""Recorded spans, with the stable semantic conventions of OpenTelemetry for HTTP."""

from __future__ import annotations

import re
from asyncio import CancelledError
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry import propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, get_current
from opentelemetry.propagators.textmap import Getter, Setter
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from meshsdk.telemetry.context import current
from meshsdk.telemetry.names import known_method
from meshsdk.telemetry.propagate import TraceContext, TraceParent, parse_tracestate
from meshsdk.telemetry.unrecorded import UnrecordedCall

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from meshsdk.telemetry.tracing import AttemptSpan, CallSpan, ServerSpan

__all__ = ["Served", "begin_call", "begin_request", "safe_url"]

Headers = Sequence[tuple[bytes, bytes]]
Attributes = dict[str, str | int]
Carrier = list[tuple[bytes, bytes]]

# Query keys the HTTP conventions want redacted by default: signed URLs of AWS, Google and Azure.
_SIGNATURES = re.compile(r"(?<=[?&])(AWSAccessKeyId|Signature|sig|X-Goog-Signature)=[^&#]*")
_USERINFO = re.compile(r"(?<=://)[^/?#]*@")


def safe_url(url: str) -> str:
    """The URL without credentials: neither user and password, nor signatures in its query."""
    return _SIGNATURES.sub(r"\1=REDACTED", _USERINFO.sub("REDACTED:REDACTED@", url))


def begin_call(tracer: Tracer, service: str, method: str, url: str) -> CallSpan:
    """Begin the span of a logical call below the current span or, without one, below the request being served."""
    parent = _parent()
    attributes: Attributes = {
        **_method(method),
        "url.full": safe_url(url),
        "server.address": service,
        "server.port": _port(url),
        "mesh.service": service,
    }
    name = f"{_span_word(method)} {service}"
    span = tracer.start_span(name, parent, SpanKind.CLIENT, attributes)
    inside = trace.set_span_in_context(span, parent)
    if not span.is_recording():
        # Its context goes out all the same, so that the other side does not record either.
        return UnrecordedCall(_carrier(inside))
    return _RecordedCall(tracer, span, inside, method, attributes["url.full"])


def begin_request(tracer: Tracer, served: Served, inbound: TraceContext | None) -> ServerSpan:
    """Begin a SERVER span and make it current, or enrich the one another instrumentation already opened."""
    present = trace.get_current_span()
    if present.is_recording() and getattr(present, "kind", None) is SpanKind.SERVER:
        return _EnrichedRequest(present, inbound)
    parent = propagate.extract(_by_name(served.headers), Context(), _GETTER)
    span = tracer.start_span(_span_word(served.method), parent, SpanKind.SERVER, served.attributes())
    return _RecordedRequest(span, trace.set_span_in_context(span, parent), served.method, inbound)


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
            **_method(self.method),
            "url.path": self.path,
            "url.scheme": self.scheme,
            "server.address": self.host,
            "server.port": self.port,
            "client.address": self.client,
            "user_agent.original": _first(self.headers, b"user-agent"),
        }
        return {key: value for key, value in facts.items() if value}


def _parent() -> Context:
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


def _continued(span: Span, inbound: TraceContext | None) -> TraceContext:
    """The trace as `span` continues it, with the baggage that came in."""
    here = span.get_span_context()
    parent = TraceParent(f"{here.trace_id:032x}", f"{here.span_id:016x}", int(here.trace_flags))
    return TraceContext(parent, here.trace_state.to_header(), inbound.baggage if inbound else "")


def _carrier(context: Context) -> Carrier:
    headers: Carrier = []
    propagate.inject(headers, context, _SETTER)
    return headers


class _RecordedCall:
    __slots__ = ("_inside", "_method", "_span", "_tracer", "_url")

    def __init__(self, tracer: Tracer, span: Span, inside: Context, method: str, url: str | int) -> None:
        self._tracer = tracer
        self._span = span
        self._inside = inside
        self._method = method
        self._url = url

    def attempt(self, number: int, address: str, port: int) -> AttemptSpan:
        attributes: Attributes = {
            **_method(self._method),
            "url.full": self._url,
            "server.address": address,
            "server.port": port,
        }
        if number > 1:
            attributes["http.request.resend_count"] = number - 1
        span = self._tracer.start_span(_span_word(self._method), self._inside, SpanKind.CLIENT, attributes)
        return _RecordedAttempt(span, _carrier(trace.set_span_in_context(span, self._inside)))

    def end(self, status: int | None, error: BaseException | None, attempts: int) -> None:
        if not self._span.is_recording():
            return
        self._span.set_attribute("mesh.attempts", attempts)
        _settle(self._span, status, _error_type(error), least=400)
        if error is not None and not _is_cancellation(error):
            self._span.record_exception(error)
        self._span.end()


class _RecordedAttempt:
    __slots__ = ("_span", "headers")

    def __init__(self, span: Span, headers: Carrier) -> None:
        self._span = span
        self.headers = headers

    def end(self, status: int | None, error_type: str | None) -> None:
        if self._span.is_recording():
            _settle(self._span, status, error_type, least=400)
            self._span.end()


class _EnrichedRequest:
    """Another instrumentation's SERVER span, told what only the mesh knows; its owner ends it."""

    __slots__ = ("_span", "inbound_trace")

    def __init__(self, span: Span, inbound: TraceContext | None) -> None:
        self._span = span
        self.inbound_trace = _continued(span, inbound)

    @property
    def trace_id(self) -> str:
        return self.inbound_trace.trace_id

    def set_route(self, route: str) -> None:
        """The owner names its span; two names would fight."""

    def set_peer(self, spiffe_id: str) -> None:
        self._span.set_attribute("mesh.peer", spiffe_id)

    def end(self, status: int | None, error: BaseException | None = None) -> None:
        pass


class _RecordedRequest:
    __slots__ = ("_before", "_ended", "_here", "_method", "_span", "inbound_trace")

    def __init__(self, span: Span, here: Context, method: str, inbound: TraceContext | None) -> None:
        self._span = span
        self._here = here
        self._method = method
        self._ended = False
        self._before = get_current()
        self.inbound_trace = _continued(span, inbound)
        attach(here)

    @property
    def trace_id(self) -> str:
        return self.inbound_trace.trace_id

    def set_route(self, route: str) -> None:
        self._span.set_attribute("http.route", route)
        self._span.update_name(f"{_span_word(self._method)} {route}")

    def set_peer(self, spiffe_id: str) -> None:
        self._span.set_attribute("mesh.peer", spiffe_id)

    def end(self, status: int | None, error: BaseException | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        # Put back what was there by attaching it: detaching a token fails in any context but the one that made it.
        # Elsewhere (a body closed by another thread) there is nothing of ours to take away.
        if get_current() is self._here:
            attach(self._before)
        _settle(self._span, status, _error_type(error), least=500)
        if error is not None and not _is_cancellation(error):
            self._span.record_exception(error)
        self._span.end()


def _settle(span: Span, status: int | None, error_type: str | None, least: int) -> None:
    """Status and `error.type`; a client blames from 400, a server from 500 (HTTP conventions, "Status")."""
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if error_type == "cancelled":
        span.set_attribute("mesh.response_flags", "DC")
        return
    if error_type is None and status is not None and status >= least:
        error_type = str(status)
    if error_type is not None:
        span.set_attribute("error.type", error_type)
        span.set_status(Status(StatusCode.ERROR))


def _error_type(error: BaseException | None) -> str | None:
    if error is None:
        return None
    kind = type(error)
    return (
        "cancelled" if _is_cancellation(error) else f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    )


def _is_cancellation(error: BaseException) -> bool:
    return isinstance(error, (CancelledError, GeneratorExit))


def _method(method: str) -> Attributes:
    known = known_method(method)
    return (
        {"http.request.method": known}
        if known == method
        else {
            "http.request.method": known,
            "http.request.method_original": method,
        }
    )


def _span_word(method: str) -> str:
    return "HTTP" if (known := known_method(method)) == "_OTHER" else known


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _first(headers: Headers, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in headers if name.lower() == wanted), "")


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

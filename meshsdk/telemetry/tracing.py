"""Spans for calls and requests, made only when an OpenTelemetry SDK is there to record them.

Rule 1  The app owns the SDK. Without a TracerProvider of its own, shared and empty objects stand in for spans, and the
        trace headers that came in go out as they came.
Rule 2  With one, a call is one CLIENT span and every attempt is a CLIENT span below it; the attempt's context is what
        the instance gets, through the app's global propagator. A call that is not sampled makes no attempt spans.
Rule 3  A parent is always passed by hand. Nothing depends on detaching a token in the context that attached it, which
        is what breaks when a body is read by another task or thread.
Rule 4  A span is ended once, by whoever began it; a second end does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from opentelemetry import trace

from meshsdk.telemetry.context import current
from meshsdk.telemetry.propagate import TraceContext, extract
from meshsdk.telemetry.unrecorded import NO_CALL, UnrecordedCall, UnrecordedRequest

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer, TracerProvider

__all__ = ["AttemptSpan", "CallSpan", "ServerSpan", "Tracing", "current_trace_id"]

Headers = Sequence[tuple[bytes, bytes]]


class AttemptSpan(Protocol):
    """One try on the wire."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What this try must carry; it replaces headers of the same name that the caller put there by hand."""
        ...

    def end(self, status: int | None, error_type: str | None) -> None:
        """The reply's head came (`status`), or the try failed with a failure's kind (`error_type`)."""
        ...


class CallSpan(Protocol):
    """One logical call with all its tries."""

    def attempt(self, number: int, address: str, port: int) -> AttemptSpan:
        """Begin try `number` (from 1) to an instance."""
        ...

    def end(self, status: int | None, error: BaseException | None, attempts: int) -> None:
        """The call is over; a cancellation in `error` is noted, not blamed."""
        ...


class ServerSpan(Protocol):
    """One request being served. It is current, for the app's own spans, from `begin_request` until `end`."""

    @property
    def inbound_trace(self) -> TraceContext | None:
        """For `Inbound.trace`: what work for this request belongs to, also after its reply is out."""
        ...

    @property
    def trace_id(self) -> str:
        """32 hex digits for log lines, empty where the request belongs to no trace."""
        ...

    def set_route(self, route: str) -> None:
        """Name the matched route template, such as `/orders/{id}`; never a raw path."""
        ...

    def set_peer(self, spiffe_id: str) -> None:
        """Note the verified identity of the caller."""
        ...

    def end(self, status: int | None, error: BaseException | None = None) -> None:
        """The reply is out, or the handler raised `error`."""
        ...


class Tracing:
    """Begins spans.

    Args:
        provider: an OpenTelemetry TracerProvider; None takes the app's global one, whenever it is set.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer: Tracer | None = None if provider is None else _tracer_of(provider)
        trace.get_tracer_provider()  # loads the one OTEL_PYTHON_TRACER_PROVIDER names, if it names one

    def begin_call(self, service: str, method: str, url: object) -> CallSpan:
        """Begin a logical call.

        Args:
            url: anything that `str` makes a URL of; asked for it only where it is recorded, without its credentials.
        """
        tracer = self._tracer or self._look()
        if tracer is None:
            inbound = current.get()
            found = None if inbound is None else inbound.trace
            return NO_CALL if found is None else UnrecordedCall(found.headers)
        from meshsdk.telemetry.call_spans import begin_call

        return begin_call(tracer, service, method, str(url))

    def begin_request(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        method: str,
        path: str,
        *,
        scheme: str = "http",
        host: str = "",
        port: int | None = None,
        client: str = "",
    ) -> ServerSpan:
        """Begin serving a request.

        Args:
            headers: as the server got them; names in any case.
            path: without the query.
            host, port: the address the client asked for; empty and None where unknown.
            client: the caller's network address, empty where unknown.
        """
        headers = tuple(headers)
        tracer = self._tracer or self._look()
        if tracer is None:
            return UnrecordedRequest(headers)
        from meshsdk.telemetry.request_spans import Served, begin_request

        return begin_request(tracer, Served(headers, method, path, scheme, host, port, client), extract(headers))

    def _look(self) -> Tracer | None:
        # trace.get_tracer_provider() costs 0.5-2 µs as long as none is set, for it reads the environment every time.
        # The module's own variable says the same for 0.05 µs; should a later release hide it, ask the slow way.
        if self._provider is not None:
            return None
        provider = getattr(trace, "_TRACER_PROVIDER", _HIDDEN)
        if provider is None:
            return None
        self._tracer = _tracer_of(trace.get_tracer_provider())
        return self._tracer


_HIDDEN: Final = object()


def _tracer_of(provider: TracerProvider) -> Tracer | None:
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    return provider.get_tracer("meshsdk")


def current_trace_id() -> str:
    """The trace that work done now belongs to, 32 hex digits, empty without one: for log lines."""
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        return format(span.trace_id, "032x")
    inbound = current.get()
    return "" if inbound is None or inbound.trace is None else inbound.trace.trace_id

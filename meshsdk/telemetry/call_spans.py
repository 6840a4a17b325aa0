"""Recorded spans of calls: one for the call, one below it for every try."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind

from meshsdk.telemetry.carrier import headers_of, parent_here
from meshsdk.telemetry.conventions import Attributes, method_attributes, port_of, safe_url, settle, span_word
from meshsdk.telemetry.unrecorded import UnrecordedCall

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

__all__ = ["RecordedAttempt", "RecordedCall", "begin_call"]


def begin_call(tracer: Tracer, service: str, method: str, url: str) -> RecordedCall | UnrecordedCall:
    """Begin the span of a logical call below the current span or, without one, below the request being served."""
    parent = parent_here()
    attributes: Attributes = {
        **method_attributes(method),
        "url.full": safe_url(url),
        "server.address": service,
        "server.port": port_of(url),
        "mesh.service": service,
    }
    name = f"{span_word(method)} {service}"
    span = tracer.start_span(name, parent, SpanKind.CLIENT, attributes)
    inside = trace.set_span_in_context(span, parent)
    if not span.is_recording():
        # Its context goes out all the same, so that the other side does not record either.
        return UnrecordedCall(headers_of(inside))
    return RecordedCall(tracer, span, inside, method, attributes["url.full"])


class RecordedCall:
    """A call that the sampler wants."""

    __slots__ = ("_inside", "_method", "_span", "_tracer", "_url")

    def __init__(self, tracer: Tracer, span: Span, inside: Context, method: str, url: str | int) -> None:
        self._tracer = tracer
        self._span = span
        self._inside = inside
        self._method = method
        self._url = url

    def attempt(self, number: int, address: str, port: int) -> RecordedAttempt:
        """Begin a try; the second and later ones say the how-manieth resend they are."""
        attributes: Attributes = {
            **method_attributes(self._method),
            "url.full": self._url,
            "server.address": address,
            "server.port": port,
        }
        if number > 1:
            attributes["http.request.resend_count"] = number - 1
        span = self._tracer.start_span(span_word(self._method), self._inside, SpanKind.CLIENT, attributes)
        return RecordedAttempt(span, headers_of(trace.set_span_in_context(span, self._inside)))

    def end(self, status: int | None, error: BaseException | None, attempts: int) -> None:
        """Say how it went; a second end does nothing."""
        if self._span.is_recording():
            self._span.set_attribute("mesh.attempts", attempts)
            settle(self._span, status, error, blame_from=400)


class RecordedAttempt:
    """A try of such a call; `headers` carry its own context."""

    __slots__ = ("_span", "headers")

    def __init__(self, span: Span, headers: list[tuple[bytes, bytes]]) -> None:
        self._span = span
        self.headers = headers

    def end(self, status: int | None, error_type: str | None) -> None:
        """Say how it went; a second end does nothing."""
        if self._span.is_recording():
            settle(self._span, status, error_type, blame_from=400)

"""Spans: none without an SDK, one per call, attempt and request with one; headers go on in every case."""

from __future__ import annotations

import asyncio
import threading

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from meshsdk.errors import ConnectionLost
from meshsdk.telemetry.context import Inbound, current
from meshsdk.telemetry.conventions import safe_url
from meshsdk.telemetry.propagate import extract
from meshsdk.telemetry.tracing import Tracing, current_trace_id

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
INCOMING = [
    (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode()),
    (b"tracestate", b"vendor=x"),
    (b"baggage", b"tenant=7"),
]


def only(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = (span for span in spans.get_finished_spans() if span.name == name)
    return span


def parent_id(headers: list[tuple[bytes, bytes]]) -> str:
    return dict(headers)[b"traceparent"].decode().split("-")[2]


def span_id(span: ReadableSpan) -> str:
    return format(span.context.span_id, "016x")


class TestWithoutSdk:
    def test_a_call_outside_a_request_carries_nothing(self):
        call = Tracing().begin_call("payments", "GET", "http://payments/")
        attempt = call.attempt(1, "127.0.0.1", 80)
        assert attempt.headers == []
        attempt.end(200, None)
        call.end(200, None, 1)

    def test_a_call_inside_a_request_carries_what_came_in(self):
        tracing = Tracing()
        request = tracing.begin_request(INCOMING, "GET", "/")
        token = current.set(Inbound(trace=request.inbound_trace))
        attempt = tracing.begin_call("payments", "GET", "http://payments/").attempt(1, "127.0.0.1", 80)
        current.reset(token)
        assert attempt.headers == INCOMING
        assert request.trace_id == TRACE

    def test_every_caller_gets_a_list_of_its_own(self):
        attempt = Tracing().begin_call("payments", "GET", "http://payments/").attempt(1, "127.0.0.1", 80)
        attempt.headers.append((b"x", b"y"))
        assert attempt.headers == []

    def test_the_trace_id_of_log_lines_is_the_one_that_came_in(self):
        token = current.set(Inbound(trace=extract(INCOMING)))
        assert current_trace_id() == TRACE
        current.reset(token)
        assert current_trace_id() == ""

    def test_a_provider_set_later_is_found(self, provider: TracerProvider, monkeypatch: pytest.MonkeyPatch):
        tracing = Tracing()
        assert tracing.begin_call("a", "GET", "http://a/").attempt(1, "h", 1).headers == []
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        call = tracing.begin_call("a", "GET", "http://a/")
        assert call.attempt(1, "h", 1).headers != []

    def test_a_noop_provider_is_none(self):
        tracing = Tracing(trace.NoOpTracerProvider())
        assert tracing.begin_call("a", "GET", "http://a/").attempt(1, "h", 1).headers == []

    def test_the_cheap_look_at_the_global_provider_works_with_this_release(self):
        assert hasattr(trace, "_TRACER_PROVIDER")


class TestCalls:
    def test_one_client_span_per_call_and_one_per_attempt(self, spans: InMemorySpanExporter, provider: TracerProvider):
        call = Tracing(provider).begin_call("payments", "GET", "http://user:secret@payments/charge?sig=abc&a=1")
        first = call.attempt(1, "10.0.0.1", 8001)
        first.end(503, None)
        second = call.attempt(2, "10.0.0.2", 8002)
        second.end(200, None)
        call.end(200, None, 2)

        outer = only(spans, "GET payments")
        one, two = (span for span in spans.get_finished_spans() if span.name == "GET")
        assert all(span.kind is SpanKind.CLIENT for span in (outer, one, two))
        assert one.parent == two.parent == outer.context
        assert (parent_id(first.headers), parent_id(second.headers)) == (span_id(one), span_id(two))
        assert dict(outer.attributes or {}) == {
            "http.request.method": "GET",
            "url.full": "http://REDACTED:REDACTED@payments/charge?sig=REDACTED&a=1",
            "server.address": "payments",
            "server.port": 80,
            "mesh.service": "payments",
            "mesh.attempts": 2,
            "http.response.status_code": 200,
        }
        assert outer.status.status_code is StatusCode.UNSET
        assert dict(one.attributes or {})["error.type"] == "503"
        assert one.status.status_code is StatusCode.ERROR
        assert "http.request.resend_count" not in dict(one.attributes or {})
        assert dict(two.attributes or {}) == {
            "http.request.method": "GET",
            "url.full": "http://REDACTED:REDACTED@payments/charge?sig=REDACTED&a=1",
            "server.address": "10.0.0.2",
            "server.port": 8002,
            "http.request.resend_count": 1,
            "http.response.status_code": 200,
        }

    def test_a_failed_call_tells_its_exception(self, spans: InMemorySpanExporter, provider: TracerProvider):
        call = Tracing(provider).begin_call("payments", "POST", "https://payments/")
        call.attempt(1, "10.0.0.1", 8001).end(None, "reset")
        call.end(None, ConnectionLost("reset by peer", service="payments"), 1)
        outer, attempt = only(spans, "POST payments"), only(spans, "POST")
        assert dict(outer.attributes or {})["error.type"] == "meshsdk.errors.ConnectionLost"
        assert dict(outer.attributes or {})["server.port"] == 443
        assert dict(attempt.attributes or {})["error.type"] == "reset"
        assert [event.name for event in outer.events] == ["exception"]

    def test_a_cancelled_call_is_nobodys_error(self, spans: InMemorySpanExporter, provider: TracerProvider):
        Tracing(provider).begin_call("payments", "GET", "http://payments/").end(None, asyncio.CancelledError(), 1)
        span = only(spans, "GET payments")
        assert span.status.status_code is StatusCode.UNSET
        assert dict(span.attributes or {})["mesh.response_flags"] == "DC"
        assert span.events == ()

    def test_spans_end_once(self, spans: InMemorySpanExporter, provider: TracerProvider):
        call = Tracing(provider).begin_call("payments", "GET", "http://payments/")
        attempt = call.attempt(1, "h", 1)
        for _ in range(2):
            attempt.end(200, None)
            call.end(200, None, 1)
        assert len(spans.get_finished_spans()) == 2

    def test_an_unknown_method_is_bounded(self, spans: InMemorySpanExporter, provider: TracerProvider):
        Tracing(provider).begin_call("payments", "BREW", "http://payments/").end(418, None, 1)
        attributes = dict(only(spans, "HTTP payments").attributes or {})
        assert attributes["http.request.method"] == "_OTHER"
        assert attributes["http.request.method_original"] == "BREW"

    def test_the_parent_is_the_apps_current_span(self, spans: InMemorySpanExporter, provider: TracerProvider):
        with provider.get_tracer("app").start_as_current_span("work") as work:
            Tracing(provider).begin_call("payments", "GET", "http://payments/").end(200, None, 1)
        assert only(spans, "GET payments").parent == work.get_span_context()

    def test_without_a_current_span_the_parent_is_the_inbound_request(
        self, spans: InMemorySpanExporter, provider: TracerProvider
    ):
        token = current.set(Inbound(trace=extract(INCOMING)))
        call = Tracing(provider).begin_call("payments", "GET", "http://payments/")
        headers = dict(call.attempt(1, "h", 1).headers)
        call.end(200, None, 1)
        current.reset(token)
        parent = only(spans, "GET payments").parent
        assert parent is not None
        assert (format(parent.trace_id, "032x"), format(parent.span_id, "016x")) == (TRACE, SPAN)
        assert headers[b"tracestate"] == b"vendor=x"
        assert headers[b"baggage"] == b"tenant=7"

    def test_baggage_of_the_app_goes_along(self, provider: TracerProvider):
        before = otel.get_current()
        otel.attach(baggage.set_baggage("tenant", "9"))
        call = Tracing(provider).begin_call("payments", "GET", "http://payments/")
        assert (b"baggage", b"tenant=9") in call.attempt(1, "h", 1).headers
        otel.attach(before)

    def test_a_call_that_is_not_sampled_says_so_and_makes_no_spans(self):
        spans, provider = InMemorySpanExporter(), TracerProvider(sampler=ParentBased(ALWAYS_OFF))
        provider.add_span_processor(SimpleSpanProcessor(spans))
        call = Tracing(provider).begin_call("payments", "GET", "http://payments/")
        headers = dict(call.attempt(1, "h", 1).headers)
        call.end(200, None, 1)
        assert int(headers[b"traceparent"].split(b"-")[3], 16) & 1 == 0
        assert spans.get_finished_spans() == ()

    def test_a_call_begun_here_may_end_in_another_thread(self, spans: InMemorySpanExporter, provider: TracerProvider):
        call = Tracing(provider).begin_call("payments", "GET", "http://payments/")
        thread = threading.Thread(target=lambda: call.end(200, None, 1))
        thread.start()
        thread.join()
        assert only(spans, "GET payments").status.status_code is StatusCode.UNSET


class TestRequests:
    def test_one_server_span_with_its_parent_from_the_headers(
        self, spans: InMemorySpanExporter, provider: TracerProvider
    ):
        headers = [*INCOMING, (b"User-Agent", b"curl")]
        request = Tracing(provider).begin_request(
            headers, "GET", "/orders/7", host="orders", port=8001, client="10.0.0.9"
        )
        request.set_route("/orders/{id}")
        request.set_peer("spiffe://td/ns/default/dc/dc1/svc/web")
        request.end(200)
        span = only(spans, "GET /orders/{id}")
        assert span.kind is SpanKind.SERVER
        assert span.parent is not None
        assert format(span.parent.span_id, "016x") == SPAN
        assert request.trace_id == TRACE
        assert dict(span.attributes or {}) == {
            "http.request.method": "GET",
            "url.path": "/orders/7",
            "url.scheme": "http",
            "server.address": "orders",
            "server.port": 8001,
            "client.address": "10.0.0.9",
            "user_agent.original": "curl",
            "http.route": "/orders/{id}",
            "mesh.peer": "spiffe://td/ns/default/dc/dc1/svc/web",
            "http.response.status_code": 200,
        }

    def test_it_is_current_until_it_ends(self, spans: InMemorySpanExporter, provider: TracerProvider):
        tracing = Tracing(provider)
        request = tracing.begin_request([], "GET", "/")
        tracing.begin_call("payments", "GET", "http://payments/").end(200, None, 1)
        assert current_trace_id() == request.trace_id
        request.end(200)
        assert not trace.get_current_span().get_span_context().is_valid
        assert only(spans, "GET payments").parent == only(spans, "GET").context

    def test_work_after_the_reply_stays_below_the_server_span(
        self, spans: InMemorySpanExporter, provider: TracerProvider
    ):
        tracing = Tracing(provider)
        request = tracing.begin_request([(b"baggage", b"tenant=7")], "GET", "/")
        token = current.set(Inbound(trace=request.inbound_trace, ended=True))
        request.end(200)
        call = tracing.begin_call("payments", "GET", "http://payments/")
        assert (b"baggage", b"tenant=7") in call.attempt(1, "h", 1).headers
        call.end(200, None, 1)
        current.reset(token)
        below, server = only(spans, "GET payments").parent, only(spans, "GET").context
        assert below is not None
        assert (below.trace_id, below.span_id) == (server.trace_id, server.span_id)

    @pytest.mark.parametrize(("status", "expected"), [(404, StatusCode.UNSET), (500, StatusCode.ERROR)])
    def test_a_server_blames_itself_from_500(
        self, spans: InMemorySpanExporter, provider: TracerProvider, status: int, expected: StatusCode
    ):
        Tracing(provider).begin_request([], "GET", "/").end(status)
        span = only(spans, "GET")
        assert span.status.status_code is expected
        assert dict(span.attributes or {}).get("error.type") == ("500" if status == 500 else None)

    def test_a_handlers_exception_is_recorded(self, spans: InMemorySpanExporter, provider: TracerProvider):
        request = Tracing(provider).begin_request([], "GET", "/")
        request.end(500, KeyError("x"))
        request.end(200)
        span = only(spans, "GET")
        assert dict(span.attributes or {})["error.type"] == "KeyError"
        assert [event.name for event in span.events] == ["exception"]

    def test_a_request_of_anothers_instrumentation_is_enriched(
        self, spans: InMemorySpanExporter, provider: TracerProvider
    ):
        came = propagate.extract({"traceparent": INCOMING[0][1].decode()})
        with provider.get_tracer("other").start_as_current_span("theirs", came, kind=SpanKind.SERVER) as theirs:
            request = Tracing(provider).begin_request(INCOMING, "GET", "/")
            request.set_route("/")
            request.set_peer("spiffe://td/web")
            request.end(200)
            assert theirs.is_recording()
            assert request.trace_id == format(theirs.get_span_context().trace_id, "032x")
        assert [span.name for span in spans.get_finished_spans()] == ["theirs"]
        assert dict(only(spans, "theirs").attributes or {}) == {"mesh.peer": "spiffe://td/web"}

    def test_without_trace_headers_a_request_of_anothers_instrumentation_is_enriched_too(
        self, spans: InMemorySpanExporter, provider: TracerProvider
    ):
        with provider.get_tracer("other").start_as_current_span("theirs", kind=SpanKind.SERVER):
            Tracing(provider).begin_request([], "GET", "/").end(200)
        assert [span.name for span in spans.get_finished_spans()] == ["theirs"]

    def test_a_request_from_this_very_process_has_its_own_span(
        self, spans: InMemorySpanExporter, provider: TracerProvider
    ):
        """As in tests through httpx.ASGITransport: the caller's server span is current in the callee."""
        tracing = Tracing(provider)
        outer = tracing.begin_request([], "GET", "/outer")
        attempt = tracing.begin_call("inner", "GET", "http://inner/").attempt(1, "h", 1)
        inner = tracing.begin_request(attempt.headers, "GET", "/inner")
        inner.set_route("/inner")
        inner.end(200)
        assert current_trace_id() == outer.trace_id
        outer.set_route("/outer")
        outer.end(200)
        parent = only(spans, "GET /inner").parent
        assert parent is not None
        assert format(parent.span_id, "016x") == parent_id(attempt.headers)

    def test_a_span_of_the_app_that_is_no_server_span_is_not_taken_for_one(
        self, spans: InMemorySpanExporter, provider: TracerProvider
    ):
        with provider.get_tracer("app").start_as_current_span("loop"):
            Tracing(provider).begin_request(INCOMING, "GET", "/").end(200)
        parent = only(spans, "GET").parent
        assert parent is not None
        assert parent.is_remote

    def test_ended_by_another_thread_nothing_is_left_there(
        self, spans: InMemorySpanExporter, provider: TracerProvider, caplog: pytest.LogCaptureFixture
    ):
        left: list[object] = []

        def finish() -> None:
            request.end(200)
            left.append(otel.get_current())

        before = otel.get_current()
        request = Tracing(provider).begin_request([], "GET", "/")
        thread = threading.Thread(target=finish)
        thread.start()
        thread.join()
        otel.attach(before)
        assert left == [{}]
        assert caplog.records == []
        assert len(spans.get_finished_spans()) == 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://payments/a?b=1#c", "http://payments/a?b=1#c"),
        ("http://me@payments/", "http://REDACTED:REDACTED@payments/"),
        ("http://a:b@c@payments/x@y", "http://REDACTED:REDACTED@payments/x@y"),
        ("http://p/?X-Goog-Signature=1&x=2&Signature=3&AWSAccessKeyId=4",
         "http://p/?X-Goog-Signature=REDACTED&x=2&Signature=REDACTED&AWSAccessKeyId=REDACTED"),
        ("http://p/?design=1", "http://p/?design=1"),
    ],
)  # fmt: skip
def test_urls_are_recorded_without_credentials(url: str, expected: str):
    assert safe_url(url) == expected

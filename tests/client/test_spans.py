"""One client span per call and one per attempt, ended once, whatever became of the call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meshsdk import errors
from meshsdk.client import async_client, client
from meshsdk.telemetry.tracing import Tracing
from tests.client.colours import ONCE, Blocking, Colour, Mesh
from tests.wire.scripted import Script, Server, after_request, answering, reply

Serve = Callable[..., Server]


class Recorded:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider)

    def spans(self) -> tuple[list[ReadableSpan], ReadableSpan]:
        """The attempts, in order, and the call."""
        spans = sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        (call,) = [span for span in spans if span.parent is None]
        attempts = [span for span in spans if span.parent is not None]
        assert all(span.parent.span_id == call.context.span_id for span in attempts if span.parent)
        return attempts, call


async def get(colour: Colour, mesh: Mesh, tracing: Tracing, url: str = "http://payments/x") -> int:
    if isinstance(colour, Blocking):
        with client(colour.transport(mesh, tracing=tracing)) as http:
            return http.get(url).status_code
    async with async_client(colour.transport(mesh, tracing=tracing)) as ahttp:
        return (await ahttp.get(url)).status_code


async def test_a_call_that_is_tried_again(colour: Colour, serve: Serve) -> None:
    recorded, server = Recorded(), serve(answering(reply(b"", 503)))
    assert await get(colour, Mesh(server), recorded.tracing) == 503
    attempts, call = recorded.spans()
    assert len(attempts) == 3
    assert call.attributes is not None
    assert call.attributes["mesh.attempts"] == 3
    assert call.attributes["http.response.status_code"] == 503
    for attempt, head in zip(attempts, server.heads, strict=True):
        assert attempt.context is not None
        assert format(attempt.context.span_id, "016x").encode() in head, "each try carries its own span"


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (after_request(lambda peer: None), errors.ConnectionLost),
        (
            after_request(lambda peer: peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")),
            errors.ConnectionLost,
        ),
    ],
    ids=["before the head", "in the body"],
)
async def test_a_call_that_fails(colour: Colour, serve: Serve, script: Script, kind: type[errors.CallError]) -> None:
    recorded = Recorded()
    with pytest.raises(kind):
        await get(colour, Mesh(serve(script), plan=ONCE), recorded.tracing)
    attempts, call = recorded.spans()
    assert len(attempts) == 1
    assert not call.status.is_ok
    assert call.attributes is not None
    assert call.attributes["mesh.attempts"] == 1


async def test_a_service_nobody_knows(colour: Colour) -> None:
    recorded = Recorded()
    with pytest.raises(errors.UnknownService):
        await get(colour, Mesh(), recorded.tracing, "http://orders/")
    attempts, call = recorded.spans()
    assert attempts == []
    assert not call.status.is_ok


async def test_outside_the_mesh(colour: Colour, serve: Serve) -> None:
    recorded, server = Recorded(), serve(answering())
    assert await get(colour, Mesh(), recorded.tracing, f"http://{server.address}/") == 200
    attempts, call = recorded.spans()
    assert len(attempts) == 1
    assert call.context is not None
    assert format(call.context.trace_id, "032x").encode() in server.heads[0]

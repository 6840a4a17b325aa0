"""An OpenTelemetry SDK that keeps its spans in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import context as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(spans: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider


@pytest.fixture(autouse=True)
def clean_context() -> Iterator[None]:
    """Every test starts, and must end, without a current span."""
    assert not otel.get_current()
    yield
    assert not otel.get_current()

"""The metrics as OpenTelemetry's SDK reads them."""

from __future__ import annotations

import gc
import weakref

import pytest
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint

from meshsdk.core.events import AttemptEnded, CallEnded
from meshsdk.core.model import Call, Endpoint
from meshsdk.telemetry.instruments import DURATION_BOUNDS, Reading
from meshsdk.telemetry.metrics import Metrics
from meshsdk.telemetry.otel import export
from meshsdk.telemetry.requests import RequestEnded, RequestStarted

ENDPOINT = Endpoint("a", "127.0.0.1", 8001)
Points = dict[str, list[NumberDataPoint | HistogramDataPoint]]


def read(reader: InMemoryMetricReader) -> Points:
    data = reader.get_metrics_data()
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
    return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}  # type: ignore[arg-type]


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> MeterProvider:
    return MeterProvider([reader], shutdown_on_exit=False)


def test_counts_gauges_and_durations(reader: InMemoryMetricReader, provider: MeterProvider):
    metrics = Metrics()
    export(metrics, "checkout", provider)
    metrics.observe_gauges(lambda: [Reading("mesh.client.endpoints", ("payments", "healthy"), 3)])
    metrics.sink(AttemptEnded("payments", ENDPOINT, 1, "2xx", "final:answered", 200, 0.1))
    metrics.sink(
        CallEnded("payments", Call("GET"), 404, "", "answered", 1, 0.02, 0.01, ENDPOINT, "defaults", access_log="off")
    )
    metrics.sink(RequestStarted("GET"))
    metrics.collect()
    points = read(reader)
    (duration,) = points["http.client.request.duration"]
    assert isinstance(duration, HistogramDataPoint)
    assert duration.count == 1
    assert tuple(duration.explicit_bounds) == DURATION_BOUNDS
    assert dict(duration.attributes or {}) == {
        "mesh.service": "payments",
        "server.address": "payments",
        "http.request.method": "GET",
        "http.response.status_code": 404,
        "error.type": "404",
    }
    values = {
        name: [(dict(p.attributes or {}), p.value) for p in found if isinstance(p, NumberDataPoint)]
        for name, found in points.items()
    }
    assert values["mesh.client.attempts"] == [
        ({"mesh.service": "payments", "mesh.outcome": "2xx", "mesh.decision": "final:answered"}, 1)
    ]
    assert values["mesh.client.endpoints"] == [({"mesh.service": "payments", "mesh.state": "healthy"}, 3)]
    assert values["http.server.active_requests"] == [({"http.request.method": "GET"}, 1)]


def test_a_closed_mesh_does_not_stay_with_the_provider(reader: InMemoryMetricReader, provider: MeterProvider):
    metrics = Metrics()
    export(metrics, "checkout", provider)
    metrics.sink(RequestStarted("GET"))
    gone = weakref.ref(metrics)
    del metrics
    gc.collect()
    assert gone() is None
    assert read(reader) == {}


def test_two_meshes_in_one_process_keep_apart(
    reader: InMemoryMetricReader, provider: MeterProvider, caplog: pytest.LogCaptureFixture
):
    one, two = Metrics(), Metrics()
    export(one, "checkout", provider)
    export(two, "payments", provider)
    one.sink(RequestStarted("GET"))
    data = reader.get_metrics_data()
    assert data is not None
    callers = [s.scope.attributes for r in data.resource_metrics for s in r.scope_metrics]
    assert [dict(attributes or {}) for attributes in callers] == [{"mesh.caller": "checkout"}]
    assert caplog.records == []


def test_a_provider_set_after_the_start_is_used(
    reader: InMemoryMetricReader, provider: MeterProvider, monkeypatch: pytest.MonkeyPatch
):
    inside = api._internal
    monkeypatch.setattr(inside, "_PROXY_METER_PROVIDER", inside._ProxyMeterProvider())
    metrics = Metrics()
    export(metrics, "checkout")
    metrics.sink(RequestEnded("GET", "/", "/", 200, 0.1))
    metrics.collect()  # nobody listens yet
    monkeypatch.setattr(inside, "_METER_PROVIDER", provider)
    inside._PROXY_METER_PROVIDER.on_set_meter_provider(provider)
    metrics.sink(RequestEnded("GET", "/", "/", 200, 0.1))
    metrics.collect()
    (duration,) = read(reader)["http.server.request.duration"]
    assert isinstance(duration, HistogramDataPoint)
    assert duration.count == 1

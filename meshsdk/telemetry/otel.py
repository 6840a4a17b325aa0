"""The same metrics through OpenTelemetry, where the app has set a MeterProvider.

Counters and gauges are observable instruments: they cost nothing until the app's reader collects. OpenTelemetry has no
observable histogram, so both durations are recorded one by one, at some 6 µs each, while the queue is booked, and only
once a provider is there. The instruments are made through the API's proxy and come to life whenever that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from weakref import ref

from opentelemetry import metrics as api
from opentelemetry.metrics import CallbackOptions, Observation

from meshsdk.telemetry import catalogue
from meshsdk.telemetry.instruments import DURATION_BOUNDS, Labels, Metric, Sample

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, MeterProvider

    from meshsdk.telemetry.metrics import Metrics

__all__ = ["export"]


def export(metrics: Metrics, service: str, provider: MeterProvider | None = None) -> None:
    """Offer `metrics` to OpenTelemetry; call once per process and `Metrics`, when the mesh starts.

    Args:
        service: our own name; it tells the meters of two meshes in one process apart.
        provider: a MeterProvider; None takes the app's global one, now or whenever it is set.
    """
    owner = provider or api.get_meter_provider()
    meter = owner.get_meter("meshsdk", attributes={"mesh.caller": service})
    histograms: dict[str, Histogram] = {}
    weak = ref(metrics)  # the SDK keeps callbacks for ever; a closed mesh must not stay with them
    make: dict[tuple[str, str], Callable[..., object]] = {
        ("counter", "sum"): meter.create_observable_counter,
        (
            "gauge",
            "sum",
        ): meter.create_observable_up_down_counter,  # what adds up, such as calls in flight
        ("gauge", "max"): meter.create_observable_gauge,
        ("gauge", "min"): meter.create_observable_gauge,
    }
    for metric in catalogue.ALL:
        if metric.kind == "histogram":
            histograms[metric.name] = meter.create_histogram(
                metric.name, metric.unit, metric.help, explicit_bucket_boundaries_advisory=DURATION_BOUNDS
            )
        else:
            make[metric.kind, metric.merge](metric.name, [_observer(weak, metric)], metric.unit, metric.help)
    metrics.record_durations(_recorder(histograms), _provider_is_set if provider is None else lambda: True)


def _observer(weak: ref[Metrics], metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        metrics = weak()
        families = metrics.collect() if metrics is not None else ()
        samples: list[Sample] = next((f.samples for f in families if f.metric is metric), [])
        return [Observation(sample.value, _attributes(metric, sample.labels)) for sample in samples]

    return observe


def _recorder(histograms: dict[str, Histogram]) -> Callable[[Metric, Labels, float], None]:
    def record(metric: Metric, labels: Labels, seconds: float) -> None:
        histograms[metric.name].record(seconds, _attributes(metric, labels))

    return record


def _provider_is_set() -> bool:
    # As with tracing: get_meter_provider() reads the environment every time as long as none is set.
    inside = getattr(api, "_internal", None)
    if hasattr(inside, "_METER_PROVIDER"):
        return getattr(inside, "_METER_PROVIDER") is not None  # noqa: B009
    return True  # recording through the proxy does nothing, at 0.1 µs


def _attributes(metric: Metric, labels: Labels) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {key: value for key, value in zip(metric.labels, labels, strict=True) if value}
    status = attributes.get("http.response.status_code")
    if isinstance(status, str) and status.isdecimal():
        attributes["http.response.status_code"] = int(status)
    if metric is catalogue.CALL_DURATION:
        attributes["server.address"] = attributes["mesh.service"]  # the conventions require it
    return attributes

"""Prometheus text: a strict little parser reads every line of it."""

from __future__ import annotations

import math
import re

import pytest

from meshsdk.telemetry import catalogue
from meshsdk.telemetry.instruments import Family, Histogram, Metric, Reading, Sample
from meshsdk.telemetry.metrics import Metrics
from meshsdk.telemetry.prometheus import expose, lasting, merge, metric_name
from meshsdk.telemetry.requests import RequestEnded, RequestStarted

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def strict(text: str) -> tuple[dict[str, str], Series]:
    """Types by metric and values by series, or an AssertionError where a scraper could stumble."""
    types: dict[str, str] = {}
    series: Series = {}
    helped: set[str] = set()
    lines = text.split("\n")
    assert lines.pop() == "", "the last line must end"
    family = ""
    for line in lines:
        if about := re.fullmatch(r"# (HELP|TYPE) ([a-z_]+) (.+)", line):
            kind, family, rest = about.groups()
            if kind == "HELP":
                assert family not in helped, f"two HELP of {family}"
                helped.add(family)
            else:
                assert family in helped, "HELP comes first"
                assert family not in types, f"two TYPE of {family}"
                types[family] = rest
            continue
        match = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
        assert match, f"not a sample: {line!r}"
        name, labels, value = match.groups()
        suffixes = ("_bucket", "_sum", "_count") if types[family] == "histogram" else ("",)
        assert name in {family + suffix for suffix in suffixes}, f"{name} under {family}"
        key = (name, tuple(pairs(labels or "")))
        assert key not in series, f"twice: {line}"
        series[key] = float(value)
    return types, series


def pairs(labels: str) -> list[tuple[str, str]]:
    found, position = [], 0
    while position < len(labels):
        match = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|$)').match(labels, position)
        assert match, f"bad labels: {labels!r}"
        value = re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), match[2])
        found.append((match[1], value))
        position = match.end()
    return found


def histogram(*seconds: float) -> Family:
    duration = Histogram(catalogue.REQUEST_DURATION, bounds=(0.1, 1.0))
    for value in seconds:
        duration.observe(("GET", "/", "200", ""), value)
    return duration.family()


def gauge(name: str, *samples: tuple[tuple[str, ...], float]) -> Family:
    return Family(catalogue.GAUGES[name], [Sample(labels, value) for labels, value in samples])


def test_names_have_units_and_total():
    assert metric_name(catalogue.CALL_DURATION) == "http_client_request_duration_seconds"
    assert metric_name(catalogue.ATTEMPTS) == "mesh_client_attempts_total"
    assert metric_name(catalogue.ACTIVE_REQUESTS) == "http_server_active_requests"
    assert metric_name(catalogue.GAUGES["mesh.registry.staleness"]) == "mesh_registry_staleness_seconds"


def test_a_histogram_is_cumulative():
    labels = 'http_request_method="GET",http_route="/",http_response_status_code="200",error_type=""'
    assert expose([histogram(0.05, 0.1, 0.5, 7.25)]).splitlines() == [
        "# HELP http_server_request_duration_seconds Time from a request's head to the end of its reply.",
        "# TYPE http_server_request_duration_seconds histogram",
        f'http_server_request_duration_seconds_bucket{{{labels},le="0.1"}} 2',
        f'http_server_request_duration_seconds_bucket{{{labels},le="1"}} 3',
        f'http_server_request_duration_seconds_bucket{{{labels},le="+Inf"}} 4',
        f"http_server_request_duration_seconds_sum{{{labels}}} 7.9",
        f"http_server_request_duration_seconds_count{{{labels}}} 4",
    ]


def test_labels_and_help_are_escaped():
    metric = Metric("mesh.odd", "counter", "1", 'a\\b\nc "d"', ("mesh.what",))
    text = expose([Family(metric, [Sample(('say "hi"\n\\n\x85\u2028',), 1)])])
    assert text.startswith('# HELP mesh_odd_total a\\\\b\\nc "d"\n')
    _, series = strict(text)
    assert series == {("mesh_odd_total", (("mesh_what", 'say "hi"\n\\n\x85\u2028'),)): 1}
    assert strict(merge([text]))[1] == series


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0, 0.1, 1e300, math.inf, -math.inf, 2.0**60, 123456789.5])
def test_numbers_read_back(value: float):
    (read,) = strict(expose([gauge("mesh.client.in_flight", (("a",), value))]))[1].values()
    assert read == value


def test_no_number_is_nan():
    (read,) = strict(expose([gauge("mesh.client.in_flight", (("a",), math.nan))]))[1].values()
    assert math.isnan(read)


def test_nothing_is_empty():
    assert expose([]) == merge([]) == merge([""]) == ""


def test_a_real_process_is_readable():
    metrics = Metrics()
    metrics.observe_gauges(lambda: [Reading("mesh.client.endpoints", ("payments", "healthy"), 3)])
    metrics.sink(RequestStarted("GET"))
    metrics.sink(RequestEnded("GET", "/", "/", 200, 0.1))
    types, series = strict(expose(metrics.collect()))
    assert types == {
        "http_server_request_duration_seconds": "histogram",
        "http_server_active_requests": "gauge",
        "mesh_client_endpoints": "gauge",
    }
    assert series["mesh_client_endpoints", (("mesh_service", "payments"), ("mesh_state", "healthy"))] == 3


def test_workers_add_up_except_for_states():
    def worker(in_flight: float, age: float) -> str:
        families = [
            gauge("mesh.client.in_flight", (("a",), in_flight)),
            gauge("mesh.registry.staleness", (("a",), age)),
            gauge("mesh.identity.expiry", ((), age)),
            histogram(0.05, in_flight),
        ]
        return expose(families)

    _, series = strict(merge([worker(1, 30), worker(2, 10)]))
    service = (("mesh_service", "a"),)
    assert series["mesh_client_in_flight", service] == 3
    assert series["mesh_registry_staleness_seconds", service] == 30
    assert series["mesh_identity_expiry_seconds", ()] == 10
    assert [v for (name, _), v in series.items() if name.endswith("_count")] == [4]
    assert [v for (name, labels), v in series.items() if ("le", "1") in labels] == [3]


def test_series_that_only_one_worker_has_stay():
    one = expose([gauge("mesh.client.in_flight", (("a",), 1))])
    two = expose([gauge("mesh.client.in_flight", (("b",), 2)), histogram(1)])
    merged = merge([one, two])
    assert sorted(merged.splitlines()) == sorted({*one.splitlines(), *two.splitlines()})


def test_what_lasts_of_a_worker_is_what_it_counted():
    text = expose([gauge("mesh.client.in_flight", (("a",), 1)), histogram(1)])
    assert lasting(text) == expose([histogram(1)])


@pytest.mark.parametrize(
    "text",
    [
        "garbage\n",
        "a 1\n",
        "# HELP a b\n# TYPE a gauge\na one two\n",
        '# HELP a b\n# TYPE a gauge\na{b="c} 1\n',
        "# HELP a",
    ],
)
def test_what_is_not_ours_is_refused(text: str):
    with pytest.raises(ValueError, match=r"line \d|cut off"):
        merge([text])

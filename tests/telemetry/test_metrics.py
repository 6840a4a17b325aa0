"""What is counted, exactly, from any number of threads, within bounds."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import threading
from collections.abc import Iterator

import pytest

from meshsdk.core.events import AttemptEnded, BreakerMoved, CallEnded, Ejected, Returned
from meshsdk.core.model import Call, Endpoint
from meshsdk.telemetry import catalogue
from meshsdk.telemetry.instruments import LABEL_LENGTH, SERIES, Counter, Histogram, Reading
from meshsdk.telemetry.metrics import Metrics
from meshsdk.telemetry.requests import RequestEnded, RequestStarted

ENDPOINT = Endpoint("a", "127.0.0.1", 8001)


def call_ended(status: int | None = 200, flag: str = "", method: str = "GET", seconds: float = 0.02) -> CallEnded:
    return CallEnded(
        "payments", Call(method), status, flag, "answered", 1, seconds, 0.01, ENDPOINT, "defaults", access_log="off"
    )


def found(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return {s.labels: s.value for f in metrics.collect() for s in f.samples if f.metric.name == name}


def count(metrics: Metrics, name: str) -> dict[tuple[str, ...], int]:
    return {s.labels: s.count for f in metrics.collect() for s in f.samples if f.metric.name == name}


def test_nothing_counted_is_nothing_told():
    assert Metrics().collect() == []


@pytest.mark.parametrize(
    ("event", "labels"),
    [
        (call_ended(), ("payments", "GET", "200", "")),
        (call_ended(404), ("payments", "GET", "404", "404")),
        (call_ended(None, "UF"), ("payments", "GET", "", "UF")),
        (call_ended(200, "DC"), ("payments", "GET", "200", "DC")),
        (call_ended(method="BREW"), ("payments", "_OTHER", "200", "")),
    ],
)
def test_calls_by_service_method_status_and_error(event: CallEnded, labels: tuple[str, ...]):
    metrics = Metrics()
    metrics.sink(event)
    assert count(metrics, "http.client.request.duration") == {labels: 1}


@pytest.mark.parametrize(("flag", "refused"), [("UO", True), ("UH", True), ("NR", True), ("RL", True), ("UF", False)])
def test_refused_calls_by_flag(flag: str, refused: bool):
    metrics = Metrics()
    metrics.sink(call_ended(None, flag))
    assert found(metrics, "mesh.client.refused") == ({("payments", flag): 1} if refused else {})


def test_durations_fall_into_their_bucket():
    metrics = Metrics()
    for seconds in (0.0, 0.005, 0.0051, 10.0, 10.1, 3600.0):
        metrics.sink(call_ended(seconds=seconds))
    ((sample,),) = [f.samples for f in metrics.collect()]
    assert sample.buckets == (2, 1, *(0,) * 11, 1, 2)
    assert sample.count == 6
    assert sample.value == pytest.approx(3620.1101)


def test_attempts_ejections_returns_and_breaker():
    metrics = Metrics()
    metrics.sink(AttemptEnded("payments", ENDPOINT, 1, "reset", "retry:reset", None, 0.1))
    metrics.sink(AttemptEnded("payments", ENDPOINT, 2, "2xx", "final:answered", 200, 0.1))
    metrics.sink(Ejected("payments", ENDPOINT, "consecutive-failures", 30))
    metrics.sink(Returned("payments", ENDPOINT))
    metrics.sink(BreakerMoved("payments", "closed", "open"))
    metrics.sink(BreakerMoved("payments", "open", "half-open"))
    assert found(metrics, "mesh.client.attempts") == {
        ("payments", "reset", "retry:reset"): 1,
        ("payments", "2xx", "final:answered"): 1,
    }
    assert found(metrics, "mesh.client.ejections") == {("payments", "consecutive-failures"): 1}
    assert found(metrics, "mesh.client.returns") == {("payments",): 1}
    assert found(metrics, "mesh.client.breaker.transitions") == {("payments", "open"): 1, ("payments", "half-open"): 1}
    assert found(metrics, "mesh.client.breaker.state") == {("payments",): 1}


def test_a_call_counts_the_try_that_was_answered():
    metrics = Metrics()
    for status, answered in ((200, "2xx"), (200, "2xx"), (404, "4xx"), (503, "")):
        event = call_ended(status)
        event.answered = answered
        metrics.sink(event)
    metrics.sink(AttemptEnded("payments", ENDPOINT, 1, "5xx", "final:attempts-used", 503, 0.1))
    assert found(metrics, "mesh.client.attempts") == {
        ("payments", "2xx", "final:answered"): 2,
        ("payments", "4xx", "final:answered"): 1,
        ("payments", "5xx", "final:attempts-used"): 1,
    }
    assert sum(count(metrics, "http.client.request.duration").values()) == 4
    metrics.reset()
    metrics.sink(call_ended())
    assert count(metrics, "http.client.request.duration") == {("payments", "GET", "200", ""): 1}


def test_calls_without_room_are_told_every_time():
    metrics, answered = Metrics(), "2xx"
    for n in (*range(SERIES + 5), 0, SERIES + 1):
        event = call_ended()
        event.service, event.answered = f"service-{n}", answered
        metrics.sink(event)
    calls, tries = count(metrics, "http.client.request.duration"), found(metrics, "mesh.client.attempts")
    assert (calls["service-0", "GET", "200", ""], calls["other", "other", "other", "other"]) == (2, 6)
    assert (tries["service-0", "2xx", "final:answered"], tries["other", "other", "other"]) == (2, 6)
    assert found(metrics, "mesh.metrics.overflow") == {
        ("http.client.request.duration",): 6,
        ("mesh.client.attempts",): 6,
    }


def test_requests_served():
    metrics = Metrics()
    for _ in range(3):
        metrics.sink(RequestStarted("GET"))
    metrics.sink(RequestEnded("GET", "/orders/7", "/orders/{id}", 200, 0.1))
    metrics.sink(RequestEnded("GET", "/orders/8", "/orders/{id}", 500, 0.1, error_type="KeyError"))
    assert found(metrics, "http.server.active_requests") == {("GET",): 1}
    metrics.sink(RequestEnded("GET", "/orders/9", "", 503, 0.1, flag="UO", refused=True))
    assert found(metrics, "http.server.active_requests") == {("GET",): 0}
    assert count(metrics, "http.server.request.duration") == {
        ("GET", "/orders/{id}", "200", ""): 1,
        ("GET", "/orders/{id}", "500", "KeyError"): 1,
        ("GET", "", "503", "UO"): 1,
    }
    assert found(metrics, "mesh.server.refused") == {("UO",): 1}


def test_counts_are_exact_under_threads():
    """Eight threads, switching every few bytecodes, and a ninth that collects all the while."""
    metrics, each, done = Metrics(), 4000, threading.Event()
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work() -> None:
        for n in range(each):
            metrics.sink(call_ended(200 if n % 2 else 500))

    def scrape() -> None:
        while not done.is_set():
            metrics.collect()

    threads = [threading.Thread(target=work) for _ in range(8)]
    scraper = threading.Thread(target=scrape)
    try:
        for thread in (*threads, scraper):
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        done.set()
        scraper.join()
        sys.setswitchinterval(switch)
    assert count(metrics, "http.client.request.duration") == {
        ("payments", "GET", "200", ""): 8 * each // 2,
        ("payments", "GET", "500", "500"): 8 * each // 2,
    }


def test_a_finaliser_may_count_while_counting():
    """A reply that is collected as garbage settles its call wherever the collector runs, booking included."""
    metrics = Metrics()

    class Reply:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            metrics.sink(call_ended(flag="DC"))

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(500):
            Reply()
            metrics.sink(call_ended())
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert count(metrics, "http.client.request.duration") == {
        ("payments", "GET", "200", ""): 500,
        ("payments", "GET", "200", "DC"): 500,
    }


def test_series_are_bounded_and_the_rest_is_told():
    metrics = Metrics()
    for n in range(SERIES + 50):
        metrics.sink(RequestStarted("GET"))
        metrics.sink(RequestEnded("GET", f"/{n}", f"/{n}", 200, 0.1))
    series = count(metrics, "http.server.request.duration")
    assert len(series) == SERIES + 1
    assert series["other", "other", "other", "other"] == 50
    assert found(metrics, "mesh.metrics.overflow") == {("http.server.request.duration",): 50}


def test_long_label_values_are_cut():
    counter = Counter(catalogue.REQUESTS_REFUSED)
    for _ in range(2):
        counter.add(("x" * 1000,))
    assert [(s.labels, s.value) for s in counter.family().samples] == [(("x" * LABEL_LENGTH,), 2)]
    histogram = Histogram(catalogue.CALL_DURATION, bounds=(1.0,))
    for _ in range(2):
        histogram.observe(("y" * 1000,), 0.5)
    assert [(s.labels, s.buckets) for s in histogram.family().samples] == [(("y" * LABEL_LENGTH,), (2, 0))]


def test_gauges_are_read_when_collected():
    metrics, now = Metrics(), [3.0]

    def read() -> Iterator[Reading]:
        yield Reading("mesh.client.in_flight", ("payments",), now[0])

    metrics.observe_gauges(read)
    assert found(metrics, "mesh.client.in_flight") == {("payments",): 3}
    now[0] = 0
    assert found(metrics, "mesh.client.in_flight") == {("payments",): 0}


def test_a_broken_reader_costs_only_itself(caplog: pytest.LogCaptureFixture):
    metrics = Metrics()
    metrics.observe_gauges(lambda: [Reading("mesh.client.no_such_gauge", (), 1)])
    metrics.observe_gauges(lambda: [Reading("mesh.client.in_flight", ("payments",), 1)])
    metrics.sink(call_ended())
    assert {family.metric.name for family in metrics.collect()} == {
        "http.client.request.duration",
        "mesh.client.in_flight",
    }
    assert "mesh.client.no_such_gauge" in caplog.text


def test_recorders_hear_every_duration():
    metrics, heard = Metrics(), []
    metrics.record_durations(lambda metric, labels, seconds: heard.append((metric.name, labels, seconds)))
    metrics.sink(call_ended())
    metrics.sink(RequestEnded("GET", "/", "/", 200, 0.5))
    metrics.collect()
    assert heard == [
        ("http.client.request.duration", ("payments", "GET", "200", ""), 0.02),
        ("http.server.request.duration", ("GET", "/", "200", ""), 0.5),
    ]


def test_every_label_has_a_value_and_every_name_is_one_metric():
    assert len({metric.name for metric in catalogue.ALL}) == len(catalogue.ALL)


def _count_in_child(metrics: Metrics, answer: multiprocessing.SimpleQueue[list[float]]) -> None:
    before = list(count(metrics, "http.client.request.duration").values())
    metrics.sink(call_ended())
    answer.put([*before, *count(metrics, "http.client.request.duration").values()])


# Python 3.12 warns of any fork beside other threads, which is what is tried here.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_from_zero_even_if_somebody_was_booking():
    metrics = Metrics()
    metrics.sink(call_ended())
    fork = multiprocessing.get_context("fork")
    answer = fork.SimpleQueue()
    child = fork.Process(target=_count_in_child, args=(metrics, answer))
    with metrics._counts._booking:
        child.start()
    child.join(20)
    assert child.exitcode == 0
    assert answer.get() == [1]
    assert count(metrics, "http.client.request.duration") == {("payments", "GET", "200", ""): 1}

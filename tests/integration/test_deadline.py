"""A caller's deadline goes from process to process and ends what nobody waits for any more."""

from __future__ import annotations

import time

from tests.integration.programs import Starter, until


def test_deadline_goes_along_and_ends_the_handler(starter: Starter, service: str) -> None:
    starter.gunicorn(f"{service}-back", "--threads", "4")
    front = starter.uvicorn(f"{service}-front", BACK=f"{service}-back")
    starter.wait()
    quick = front.get("/slow/0.05", {"x-envoy-expected-rq-timeout-ms": "5000"})
    assert 0 < quick["deadline"] < 5, "the back was given less than the front"

    began = time.monotonic()
    status, text = front.text("/slow/2.0", {"x-envoy-expected-rq-timeout-ms": "300"})
    took = time.monotonic() - began
    assert status == 504, text
    assert 0.25 < took < 0.6, took

    first, second = until(lambda: notes if len(notes := front.get("/seen")) == 2 else None)
    assert 4.5 < first["deadline"] < 5
    assert first["ended"] == "answered"
    assert 0.2 < second["deadline"] <= 0.3
    assert second["ended"] in {"CancelledError", "DeadlineExceeded", "HttpxDeadlineExceeded"}, second

    until(lambda: front.metric("mesh_client_in_flight") == 0, about=lambda: front.text("/-/mesh/metrics")[1])
    assert front.metric("http_server_active_requests") == 0


def test_expired_requests_are_refused_at_the_door(starter: Starter, service: str) -> None:
    front = starter.uvicorn(f"{service}-front", BACK=f"{service}-back")
    starter.wait()
    status, text = front.text("/slow/0.1", {"x-envoy-expected-rq-timeout-ms": "0"})
    assert status == 504, text
    assert front.get("/seen") == [], "the handler was not bothered"
    assert front.metric("mesh_server_refused_total") == 1

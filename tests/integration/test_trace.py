"""One trace through processes, tasks, threads and executors, by the mesh alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.integration.programs import Program, Starter, until

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
WAYS = ("await", "task", "to-thread", "executor", "thread")


def pair(starter: Starter, service: str, **env: str) -> tuple[Program, Program]:
    """The FastAPI service and the Flask one it calls, both ready."""
    back = starter.gunicorn(f"{service}-back", "--threads", "4", **env)
    front = starter.uvicorn(f"{service}-front", BACK=f"{service}-back", **env)
    starter.wait()
    return front, back


def spans_of(file: Path, trace: str, count: int) -> list[dict[str, Any]]:
    """The spans of one trace, without the inner ones that a framework may make of its own (FastAPI does).

    Their children are taken for those of the span around them.
    """

    def read() -> list[dict[str, Any]]:
        lines = file.read_text().splitlines() if file.exists() else []
        spans = [span for span in map(json.loads, lines) if span["trace"] == trace]
        inner = {span["span"]: span["parent"] for span in spans if span["kind"] == "INTERNAL"}
        kept = [span for span in spans if span["kind"] != "INTERNAL"]
        return [{**span, "parent": inner.get(span["parent"], span["parent"])} for span in kept]

    return until(lambda: found if len(found := read()) >= count else None, about=lambda: "\n".join(map(str, read())))


def test_one_trace_whatever_way_the_call_takes(starter: Starter, service: str, tmp_path: Path) -> None:
    """The SDK is the apps' own; nobody instrumented FastAPI, Flask or httpx with it."""
    assert not [name for name in sys.modules if name.startswith("opentelemetry.instrumentation")]
    front, _ = pair(starter, service, SPANS=str(tmp_path / "spans"))
    for way in WAYS:
        trace = f"{WAYS.index(way) + 1:032x}"
        received = front.get(f"/through/{way}", {"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
        assert received["traceparent"].split("-")[1] == trace, way
    received = front.get("/sync-handler", {"traceparent": PARENT})
    assert received["traceparent"].split("-")[1] == TRACE

    for trace in (TRACE, *(f"{number + 1:032x}" for number in range(len(WAYS)))):
        chain(spans_of(tmp_path / "spans", trace, 4), service)


def chain(spans: list[dict[str, Any]], service: str) -> None:
    """Server span of the front, the call's, its one attempt's, server span of the back; each below the one before."""
    assert len(spans) == 4, spans
    by_parent = {span["parent"]: span for span in spans}
    parent, found = "b7ad6b7169203331", []
    for _ in range(4):
        span = by_parent[parent]
        found.append((span["service"].removeprefix(service), span["kind"]))
        parent = span["span"]
    assert found == [("-front", "SERVER"), ("-front", "CLIENT"), ("-front", "CLIENT"), ("-back", "SERVER")]


def test_every_attempt_has_its_span(starter: Starter, service: str, tmp_path: Path) -> None:
    """The back's only instance is dead: three attempts, each in a span of its own under the one of the call."""
    front = starter.uvicorn(f"{service}-front", BACK=f"{service}-back", SPANS=str(tmp_path / "spans"))
    starter.consul.add(f"{service}-back", 1)
    starter.wait()
    assert front.text("/through/await", {"traceparent": PARENT})[0] == 500
    spans = spans_of(tmp_path / "spans", TRACE, 5)
    (server,) = [span for span in spans if span["kind"] == "SERVER"]
    (call,) = [span for span in spans if span["parent"] == server["span"]]
    attempts = [span for span in spans if span["parent"] == call["span"]]
    assert len(attempts) == 3, spans
    assert len(spans) == 5


def test_without_an_sdk_the_parent_goes_along_unchanged(starter: Starter, service: str) -> None:
    front, back = pair(starter, service)
    headers = {"traceparent": PARENT, "tracestate": "vendor=1"}
    for way in WAYS:
        received = front.get(f"/through/{way}", headers)
        assert received["traceparent"] == PARENT, way
        assert received["tracestate"] == "vendor=1", way
    assert "traceparent" not in back.get("/echo")
    assert "traceparent" not in front.get("/through/await")

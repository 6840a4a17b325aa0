"""Many processes, one instance: gunicorn's workers, preloaded or not, and children by fork."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable

import pytest
from starlette.responses import PlainTextResponse

from tests.integration.programs import ConsulView, Program, Site, Starter, until

Serve = Callable[..., Site]


JITTER = ("--max-requests-jitter", "15")


def callers(program: Program, workers: int) -> dict[int, int]:
    """Have workers make mesh calls until each has; how many each made."""
    made: Counter[int] = Counter()

    def all_have() -> bool:
        answer = program.get("/call")
        assert answer["status"] == 200
        assert answer["connected"], "it watches for itself"
        made[answer["pid"]] += 1
        return len(made) == workers

    until(all_have, 20, lambda: (made, program.log))
    return made


@pytest.mark.parametrize("preload", [False, True])
def test_workers_are_one_instance_and_each_calls(
    starter: Starter, consul: ConsulView, site: Serve, service: str, preload: bool
) -> None:
    consul.add(f"{service}-x", site(PlainTextResponse("{}")).port)
    options = ["--workers", "4", *(["--preload"] if preload else [])]
    program = starter.gunicorn(service, *options, BACK=f"{service}-x")
    starter.wait()
    made = callers(program, 4)
    assert len(consul.passing(service)) == 1
    total = sum(made.values())
    served = 'http_route="/call"'
    for _ in range(6):  # whichever worker answers, it speaks for all
        assert program.metric("http_server_request_duration_seconds_count", served) == total
        assert program.metric("http_client_request_duration_seconds_count") == total
    assert program.end() == 0
    assert consul.passing(service) == []


def test_recycled_workers_leave_the_instance_alone(
    starter: Starter, consul: ConsulView, site: Serve, service: str
) -> None:
    consul.add(f"{service}-x", site(PlainTextResponse("{}")).port)
    program = starter.gunicorn(service, "--workers", "2", "--max-requests", "25", *JITTER, BACK=f"{service}-x")
    starter.wait()
    pids: set[int] = set()
    calls = 0
    began = time.monotonic()
    while len(pids) < 5:
        pids.add(program.get("/call")["pid"])
        calls += 1
        assert len(consul.passing(service)) == 1, program.log
        assert time.monotonic() - began < 30
    # What ended workers counted is kept.
    until(
        lambda: program.metric("http_server_request_duration_seconds_count", 'http_route="/call"') == calls,
        about=lambda: (calls, program.text("/-/mesh/metrics")[1]),
    )


def test_forked_child_calls_beside_its_parent(starter: Starter, consul: ConsulView, site: Serve, service: str) -> None:
    consul.add(service, site(PlainTextResponse("{}")).port)
    program = starter.program("forking", "forking.py", BACK=service, MESH_PORT="")
    try:
        assert program.process.wait(30) == 0, program.log
    except subprocess.TimeoutExpired:
        raise AssertionError(f"parent or child hangs: {program.log}") from None
    told = json.loads(program.log)
    assert Counter(told["parent"]) == {"200": 240}
    assert Counter(told["child"]["calls"]) == {"200": 200}
    assert told["code"] == 0
    assert told["connected"] == told["child"]["connected"] == [service]


def test_child_of_a_server_does_not_take_it_out(starter: Starter, consul: ConsulView, service: str) -> None:
    program = starter.uvicorn(service, BACK=service)
    starter.wait()
    assert program.get("/fork") == {"code": 0}
    time.sleep(0.5)
    assert len(consul.passing(service)) == 1
    assert program.get("/who")["port"] == program.port

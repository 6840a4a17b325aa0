"""The life of processes under gunicorn's workers, in real processes against the dev agent."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

Start = Callable[..., Any]


def gunicorn(start: Start, port: int, *more: str, app: str = "wsgi_app:app", **env: str) -> Any:
    command = ["gunicorn", app, "--bind", f"127.0.0.1:{port}", "--log-level", "warning", "--no-control-socket"]
    return start(*command, *more, port=port, **env)


def only(consul: Any) -> Any:
    found = list(consul.instances("shop").values())
    assert len(found) <= 1
    return found[0] if found else None


def children(program: Any) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(program.process.pid)], capture_output=True, check=False)
    return [int(pid) for pid in listed.stdout.split()]


# Preloaded, a threaded worker hears of its handlers too late and of its requests in the wrong thread: the hardest case.
KINDS = {
    "sync": ["--worker-class", "sync"],
    "gthread-preload": ["--worker-class", "gthread", "--threads", "4", "--preload"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_workers_are_one_instance(start: Start, consul: Any, port: int, eventually: Any, kind: str) -> None:
    program = gunicorn(start, port, "--workers", "2", *KINDS[kind])
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    pids: set[int] = set()

    def all_asked() -> bool:
        pids.add(program.get("/who")["pid"])
        return len(pids) == 2

    eventually(all_asked, about=lambda: program.log)
    assert program.process.pid not in pids
    slow: list[Any] = []
    thread = threading.Thread(target=lambda: slow.append(program.get("/slow/0.9")))
    thread.start()
    time.sleep(0.2)
    program.signal(signal.SIGTERM)
    eventually(lambda: only(consul) == "maintenance", about=lambda: program.log)
    assert program.get("/who")["pid"] in pids
    eventually(lambda: only(consul) is None)
    thread.join()
    assert slow[0]["pid"] in pids
    assert program.wait() == 0


def test_recycled_worker_does_not_take_the_instance_out(start: Start, consul: Any, port: int, eventually: Any) -> None:
    program = gunicorn(start, port, "--workers", "2", "--max-requests", "25", "--max-requests-jitter", "10")
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    first = set(children(program))
    pids: set[int] = set()

    def recycled() -> bool:
        pids.add(program.get("/who")["pid"])
        assert only(consul) == "passing", program.log
        return len(pids) >= 4

    eventually(recycled, about=lambda: program.log)
    assert pids - first
    program.signal(signal.SIGTERM)
    program.wait()
    assert only(consul) is None


def test_reload_keeps_the_instance(start: Start, consul: Any, port: int, eventually: Any) -> None:
    """All workers at once are replaced, and the new ones take a second to import the application."""
    program = gunicorn(start, port, "--workers", "1")
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    (old,) = children(program)
    program.signal(signal.SIGHUP)
    seen: set[Any] = set()

    def replaced() -> bool:
        seen.add(only(consul))
        return old not in children(program) and program.get("/who")["pid"] != old

    eventually(replaced, about=lambda: program.log)
    assert seen == {"passing"}
    program.signal(signal.SIGTERM)
    program.wait()
    assert only(consul) is None


def test_killed_worker_is_not_waited_for(start: Start, consul: Any, port: int, eventually: Any) -> None:
    program = gunicorn(start, port, "--workers", "1")
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    (worker,) = children(program)
    subprocess.run(["kill", "-KILL", str(worker)], check=True)
    eventually(lambda: children(program) not in ([], [worker]))
    eventually(lambda: program.get("/who")["pid"] != worker)
    program.signal(signal.SIGTERM)
    program.wait()
    assert only(consul) is None


def test_ctrl_c_ends_without_a_traceback(start: Start, consul: Any, port: int, eventually: Any) -> None:
    """A terminal tells everybody; gunicorn then has its workers quit at once, while theirs is kept."""
    program = gunicorn(start, port, "--workers", "1")
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    (worker,) = children(program)
    os.kill(worker, signal.SIGINT)
    program.signal(signal.SIGINT)
    assert program.wait() == 0
    assert "Traceback" not in program.log
    assert only(consul) is None


def test_native_asgi_worker(start: Start, consul: Any, port: int, eventually: Any) -> None:
    program = gunicorn(start, port, "--workers", "2", "--worker-class", "asgi", app="asgi_app:app")
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    pids: set[int] = set()

    def all_asked() -> bool:
        """Under uvloop gunicorn loses a signal that comes before its loop runs: both workers must be up."""
        pids.add(program.get("/who")["pid"])
        return len(pids) == 2

    eventually(all_asked, about=lambda: program.log)
    assert pids == set(children(program))
    program.signal(signal.SIGTERM)
    eventually(lambda: only(consul) in {"maintenance", None})
    program.wait()
    assert only(consul) is None

"""The life of a process nobody manages: Flask's development server, with a child and a metrics port."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

Start = Callable[..., Any]


def only(consul: Any) -> Any:
    found = list(consul.instances("shop").values())
    assert len(found) <= 1
    return found[0] if found else None


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_child_of_a_serving_process_is_no_part_of_it(start: Start, consul: Any, port: int, eventually: Any) -> None:
    program = start("plain", port=port)
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    child = program.get("/fork")["pid"]
    os.kill(child, signal.SIGTERM)  # it has inherited our handlers, and must end at once and alone
    time.sleep(0.3)
    assert only(consul) == "passing"
    slow: list[Any] = []
    thread = threading.Thread(target=lambda: slow.append(program.get("/slow/0.8")))
    thread.start()
    time.sleep(0.2)
    program.signal(signal.SIGTERM)
    eventually(lambda: only(consul) == "maintenance", about=lambda: program.log)
    thread.join()
    assert slow, "a request in flight was cut off"
    assert program.wait() == -signal.SIGTERM
    assert only(consul) is None


def test_living_child_does_not_hold_the_instance(start: Start, consul: Any, port: int, eventually: Any) -> None:
    program = start("plain", port=port)
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    child = program.get("/fork")["pid"]
    try:
        program.signal(signal.SIGINT)
        eventually(lambda: only(consul) is None, about=lambda: program.log)
        assert not gone(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_metrics_on_a_port_of_their_own(start: Start, consul: Any, port: int, eventually: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        metrics_port = other.getsockname()[1]
    program = start("plain", port=port, MESH_METRICS_PORT=str(metrics_port), MESH_METRICS_PATH="off")
    eventually(lambda: only(consul) == "passing", about=lambda: program.log)
    program.get("/who")

    def scraped() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=5) as answer:
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            return answer.read().decode()

    eventually(lambda: 'http_route="/who"' in scraped())  # the reply is here before its request has ended
    assert program.text("/-/mesh/metrics")[0] == 404

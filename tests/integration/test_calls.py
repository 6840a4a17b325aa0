"""What callers are promised, against real servers: what is tried again, what is refused, who is set aside."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Response

from meshsdk import Mesh
from meshsdk.errors import BreakerOpen, ConnectionLost, NoEndpoint, Overloaded
from tests.integration.programs import ConsulView, Site, Starter, until

Serve = Callable[..., Site]


class Behaviour:
    """A FastAPI application that does what it is told at the moment."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.times = 0  # how many answers have `status`; 0 is all of them
        self.hold: threading.Event | None = None
        self.app = FastAPI()
        self.app.add_api_route("/{path:path}", self.answer, methods=["GET", "POST"])
        self._given = 0

    def answer(self, path: str) -> Response:
        if self.hold is not None:
            self.hold.wait(10)
        self._given += 1
        if self.times and self._given > self.times:
            return Response("fine")
        return Response("told so", self.status, self.headers)


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_server_that_dies_amid_a_request(
    starter: Starter, mesh: Mesh, service: str, tmp_path: Path, method: str
) -> None:
    """Both instances die of it: a GET reaches both, a POST that was written one."""
    for _ in range(2):
        starter.uvicorn(service, DIARY=str(tmp_path / "diary"))
    starter.wait()
    async with mesh.async_client() as http:
        assert (await http.get(f"http://{service}/who")).status_code == 200
        with pytest.raises((ConnectionLost, NoEndpoint, httpx.TransportError)) as raised:
            await http.request(method, f"http://{service}/die", content=b"once" if method == "POST" else None)
    reached = (tmp_path / "diary").read_text().split("\n")[:-1]
    if method == "POST":
        assert isinstance(raised.value, ConnectionLost), raised.value
        assert raised.value.attempts == 1
        assert len(reached) == 1
        assert raised.value.reason == "not-idempotent"
    else:
        assert len(set(reached)) == 2, reached


def test_dead_instance_costs_no_post(
    mesh: Mesh, consul: ConsulView, site: Serve, service: str, behaviour: Behaviour
) -> None:
    """Nothing listens at one of the two: no byte was written, so even a POST goes to the other."""
    consul.add(service, site(behaviour.app).port)
    consul.add(service, 1)
    with mesh.client() as http:
        assert [http.post(f"http://{service}/").status_code for _ in range(30)] == [200] * 30


def test_retry_after_is_honoured(
    mesh: Mesh, consul: ConsulView, site: Serve, service: str, behaviour: Behaviour
) -> None:
    served = site(behaviour.app)
    consul.add(service, served.port)
    behaviour.status, behaviour.times, behaviour.headers = 503, 1, {"retry-after": "1"}
    with mesh.client() as http:
        began = time.monotonic()
        assert http.get(f"http://{service}/").status_code == 200
        assert 1.0 <= time.monotonic() - began < 2.0
        assert len(served.hits) == 2


def test_retry_after_beyond_the_deadline_is_not_waited_for(
    mesh: Mesh, consul: ConsulView, site: Serve, service: str, behaviour: Behaviour
) -> None:
    served = site(behaviour.app)
    consul.policy(service, "{version: 1, timeouts: {request: 500ms}}")
    consul.add(service, served.port)
    behaviour.status, behaviour.headers = 503, {"retry-after": "1"}
    with mesh.client() as http:
        began = time.monotonic()
        assert http.get(f"http://{service}/").status_code == 503
        assert time.monotonic() - began < 0.4
    assert len(served.hits) == 1


def test_breaker_opens_probes_and_closes(
    mesh: Mesh, consul: ConsulView, site: Serve, service: str, behaviour: Behaviour
) -> None:
    served = site(behaviour.app)
    consul.add(service, served.port)
    consul.policy(
        service,
        "{version: 1, retries: {attempts: 1}, circuit_breaker: {consecutive_failures: 3, open_for: 500ms, probes: 1},"
        " outlier_detection: {consecutive_failures: 0, success_rate: 0}}",
    )
    behaviour.status = 500
    with mesh.client() as http:
        assert [http.get(f"http://{service}/").status_code for _ in range(3)] == [500] * 3
        with pytest.raises(BreakerOpen, match="circuit breaker is open"):
            http.get(f"http://{service}/")
        assert len(served.hits) == 3
        time.sleep(0.55)
        assert http.get(f"http://{service}/").status_code == 500, "the probe"
        with pytest.raises(BreakerOpen):
            http.get(f"http://{service}/")
        behaviour.status = 200
        time.sleep(0.55)
        assert [http.get(f"http://{service}/").status_code for _ in range(5)] == [200] * 5
    assert len(served.hits) == 3 + 1 + 5


def test_limits_refuse_what_is_beyond(
    mesh: Mesh, consul: ConsulView, site: Serve, service: str, behaviour: Behaviour
) -> None:
    served = site(behaviour.app)
    consul.add(service, served.port)
    consul.policy(service, "{version: 1, limits: {max_requests: 2}}")
    behaviour.hold = threading.Event()
    with mesh.client() as http:
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda: answers.append(http.get(f"http://{service}/").status_code)) for _ in "ab"
        ]
        for thread in threads:
            thread.start()
        until(lambda: len(served.hits) == 2)
        with pytest.raises(Overloaded, match="max_requests"):
            http.get(f"http://{service}/")
        behaviour.hold.set()
        for thread in threads:
            thread.join()
        assert answers == [200, 200]
        assert http.get(f"http://{service}/").status_code == 200


def test_instance_that_answers_500_is_set_aside(mesh: Mesh, consul: ConsulView, site: Serve, service: str) -> None:
    good, bad = Behaviour(), Behaviour()
    bad.status = 500
    sites = [site(good.app), site(good.app), site(bad.app)]
    for one in sites:
        consul.add(service, one.port)
    consul.policy(
        service,
        "{version: 1, load_balancing: {algorithm: round-robin}, "
        "outlier_detection: {consecutive_failures: 3, base_ejection: 2s, max_ejection: 2s}}",
    )
    with mesh.client() as http:
        statuses = Counter(http.get(f"http://{service}/").status_code for _ in range(60))
        assert statuses == {200: 57, 500: 3}, statuses
        assert len(sites[2].hits) == 3
        bad.status = 200

        def is_back() -> bool:
            """After its ejection."""
            assert http.get(f"http://{service}/").status_code == 200
            return len(sites[2].hits) > 3

        until(is_back)

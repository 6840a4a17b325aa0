"""One change in KV for each section, and what callers do differently from then on; nobody restarts anything."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response

from meshsdk import Mesh
from meshsdk.errors import CallError
from tests.integration.programs import ConsulView, Site, until

Serve = Callable[..., Site]

FORCE = 2.0
"""Seconds within which a change must be obeyed, with the other tests' load on the machine."""


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/slow")
    def slow() -> str:
        time.sleep(0.25)
        return "late"

    @app.get("/{status}")
    def answer(status: int) -> Response:
        return Response(status_code=status)

    return app


def outcome(http: httpx.Client, url: str, served: Site) -> str:
    """What one call came to, and how many requests it was."""
    before = len(served.hits)
    try:
        came: Any = http.get(url).status_code
    except CallError as error:
        came = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "meshsdk.errors")
    return f"{came} after {len(served.hits) - before}"


# The document, what is called, what comes of it before, and when the document is in force.
CHANGES = {
    "timeouts": ("timeouts: {request: 100ms}", "slow", "200 after 1", "DeadlineExceeded after 1"),
    "retries": ("retries: {attempts: 1}", "503", "503 after 3", "503 after 1"),
    "retries on": ("retries: {on: [500]}", "500", "500 after 1", "500 after 3"),
    "breaker": ("circuit_breaker: {consecutive_failures: 1}", "500", "500 after 1", "BreakerOpen after 0"),
    "from": ("from: {caller: {retries: {attempts: 2}}}", "503", "503 after 3", "503 after 2"),
    "of another": ("from: {stranger: {retries: {attempts: 2}}}", "503", "503 after 3", "503 after 3"),
}


@pytest.mark.parametrize("section", CHANGES)
def test_takes_effect(mesh: Mesh, consul: ConsulView, site: Serve, service: str, section: str) -> None:
    document, path, before, after = CHANGES[section]
    served = site(application())
    consul.add(service, served.port)
    url = f"http://{service}/{path}"
    with mesh.client() as http:
        assert outcome(http, url, served) == before
        assert mesh.status()[0].policy == "defaults"
        consul.policy(service, f"{{version: 1, {document}}}")
        until(lambda: mesh.status()[0].policy.startswith(f"{service}@"), FORCE)
        outcome(http, url, served)  # a breaker has to see one more failure
        assert outcome(http, url, served) == after
        if section != "breaker":
            consul.ask("DELETE", f"kv/mesh/policy/{service}")
            until(lambda: mesh.status()[0].policy == "defaults", FORCE)
            assert outcome(http, url, served) == before


def test_limits(mesh: Mesh, consul: ConsulView, site: Serve, service: str) -> None:
    consul.add(service, site(application()).port)

    def at_once(http: httpx.Client, count: int) -> Counter[str]:
        found: Counter[str] = Counter()

        def one() -> None:
            try:
                found[str(http.get(f"http://{service}/slow").status_code)] += 1
            except CallError as error:
                found[error.flag] += 1

        threads = [threading.Thread(target=one) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    with mesh.client() as http:
        assert at_once(http, 6) == {"200": 6}
        consul.policy(service, "{version: 1, limits: {max_requests: 4}}")
        until(lambda: mesh.status()[0].policy != "defaults", FORCE)
        assert at_once(http, 6) == {"200": 4, "UO": 2}


def test_balancing(mesh: Mesh, consul: ConsulView, site: Serve, service: str) -> None:
    """Round robin shares calls out evenly to one; peak-EWMA, by chance and speed, does not."""
    sites = [site(application()) for _ in range(3)]
    for one in sites:
        consul.add(service, one.port)
    with mesh.client() as http:
        http.get(f"http://{service}/200")
        consul.policy(service, "{version: 1, load_balancing: {algorithm: round-robin}}")
        until(lambda: mesh.status()[0].policy != "defaults", FORCE)
        for one in sites:
            one.hits.clear()
        for _ in range(60):
            http.get(f"http://{service}/200")
        assert [len(one.hits) for one in sites] == [20, 20, 20]


def test_outlier_detection(mesh: Mesh, consul: ConsulView, site: Serve, service: str) -> None:
    """Off, an instance that fails goes on being called; on, it is set aside."""
    good, bad = site(application()), site(lambda *_: _fail())
    consul.policy(
        service,
        "{version: 1, retries: {on: [500], backoff: {base: 0, max: 0}}, load_balancing: {algorithm: round-robin},"
        " outlier_detection: {consecutive_failures: 0, success_rate: 0}}",
    )
    for one in (good, bad):
        consul.add(service, one.port)
    with mesh.client() as http:
        assert [http.get(f"http://{service}/200").status_code for _ in range(30)] == [200] * 30
        assert len(bad.hits) >= 10
        old = mesh.status()[0].policy
        consul.policy(
            service,
            "{version: 1, retries: {on: [500], backoff: {base: 0, max: 0}}, load_balancing: {algorithm: round-robin},"
            " outlier_detection: {consecutive_failures: 2}}",
        )
        until(lambda: mesh.status()[0].policy != old, FORCE)
        bad.hits.clear()
        assert [http.get(f"http://{service}/200").status_code for _ in range(30)] == [200] * 30
        assert len(bad.hits) <= 2


async def _fail() -> None:
    raise LookupError("this instance is broken")


def test_access_log(
    mesh: Mesh, consul: ConsulView, site: Serve, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "meshsdk.access")
    consul.add(service, site(application()).port)
    with mesh.client() as http:
        http.get(f"http://{service}/200")
        assert service not in caplog.text
        for setting, lines in (("all", 2), ("errors", 1), ("off", 0)):
            old = mesh.status()[0].policy
            consul.policy(service, f"{{version: 1, telemetry: {{access_log: '{setting}'}}}}")
            until(lambda: mesh.status()[0].policy != old, FORCE)  # noqa: B023
            caplog.clear()
            http.get(f"http://{service}/200")
            http.get(f"http://{service}/500")
            told = [record for record in caplog.records if record.name == "meshsdk.access"]
            assert len(told) == lines, (setting, caplog.text)
            for record in told:
                assert record.mesh["policy"].startswith(f"{service}@")  # type: ignore[attr-defined]

"""Documents that cannot be obeyed: the last good one stays in force, and whoever looks is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from meshsdk import Mesh
from tests.integration.programs import ConsulView, Site, until

Serve = Callable[..., Site]

MANY_MISTAKES = """
version: 1
timeouts: {request: 3 parsecs, atempt: 1s}
retries: {attempts: 99}
hedging: true
"""
BAD = {
    "mistakes": (MANY_MISTAKES.encode(), ("timeouts.request", "parsecs", "atempt", "retries.attempts", "hedging")),
    "binary": (bytes(range(256)) * 8, ("UTF-8",)),
    "almost 512 KiB": (b"version: 1\nnonsense: '" + b"x" * (512 * 1024 - 30) + b"'", ("nonsense",)),
    "empty": (b"", ()),
    "a list": (b"[1, 2]", ()),
    "nested": (b"[" * 5000, ()),
}


def command(consul: ConsulView, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "meshsdk", *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, "CONSUL_HTTP_ADDR": consul.url, "COLUMNS": "400"},
    )


def read(ended: subprocess.CompletedProcess[str]) -> Any:
    assert ended.stdout, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("kind", BAD)
def test_last_good_stays(mesh: Mesh, consul: ConsulView, site: Serve, service: str, kind: str) -> None:
    document, words = BAD[kind]
    consul.add(service, site(PlainTextResponse("fine")).port)
    consul.policy(service, "{version: 1, timeouts: {request: 7s}}")
    with mesh.client() as http:
        assert http.get(f"http://{service}/").text == "fine"
        good = until(lambda: version if (version := mesh.status()[0].policy) != "defaults" else "")
        consul.policy(service, document)
        problem = until(lambda: mesh.status()[0].policy_problem, 3)
        assert mesh.status()[0].policy == good
        for word in words:
            assert word in problem
        assert len(problem) < 8000, "a page, not the document"
        assert http.get(f"http://{service}/").text == "fine"
        cluster = mesh.directory.peek(service)
        assert cluster is not None
        assert cluster.plan.timeouts.request == 7.0

        consul.policy(service, "{version: 1, timeouts: {request: 6s}}")
        until(lambda: cluster.plan.timeouts.request == 6.0, 3)  # the problem is gone a moment before
        assert not mesh.status()[0].policy_problem
    consul.ask("DELETE", f"kv/mesh/policy/{service}")


def test_a_broken_neighbour_changes_nothing(mesh: Mesh, consul: ConsulView, site: Serve, service: str) -> None:
    consul.add(service, site(PlainTextResponse("fine")).port)
    consul.policy(f"{service}-x", MANY_MISTAKES)
    consul.policy(service, "{version: 1, timeouts: {request: 7s}}")
    with mesh.client() as http:
        assert http.get(f"http://{service}/").text == "fine"
    (status,) = mesh.status()
    assert (status.policy.split("@")[0], status.policy_problem) == (service, "")
    consul.ask("DELETE", f"kv/mesh/policy/{service}-x")


def test_command_line_says_so(consul: ConsulView, service: str, tmp_path: Path) -> None:
    consul.add(service, 7000)
    consul.policy(service, MANY_MISTAKES)
    rows: list[dict[str, Any]] = read(command(consul, "services", "--json"))
    (row,) = [row for row in rows if row["service"] == service]
    assert "hedging" in str(row["problem"])
    checked = command(consul, "check", "--json")
    assert checked.returncode == 1
    (finding,) = [f for f in read(checked) if service in f["seen"]]
    assert finding["state"] == "fail"
    for word in ("parsecs", "atempt", "99", "hedging"):
        assert word in finding["seen"]

    huge = tmp_path / f"{service}.yaml"
    huge.write_text("version: 1  # " + "x" * 600 * 1024 + "\n")
    applied = command(consul, "policy", "apply", str(huge))
    assert applied.returncode != 0
    assert "512 KiB" in applied.stderr or "524288" in applied.stderr, applied.stderr
    huge.write_text("version: 1\ntimeouts: {request: 4s}\n")
    applied = command(consul, "policy", "apply", str(huge))
    assert applied.returncode == 0, applied.stderr
    rows = read(command(consul, "services", "--json"))
    (row,) = [row for row in rows if row["service"] == service]
    assert "hedging" not in str(row["problem"])
    consul.ask("DELETE", f"kv/mesh/policy/{service}")

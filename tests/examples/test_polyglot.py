"""The polyglot example as its README runs it, and that it does not pass where something is wrong."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "polyglot"
FIRST, SECOND = re.search(r"```sh\n(.*?)\n(.*?)\n```", (FOLDER / "README.md").read_text()).groups()


def run(**changed: str) -> subprocess.CompletedProcess[str]:
    """The README's second line."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | changed
    words = SECOND.replace("python", sys.executable).split()
    return subprocess.run(words, cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture(scope="module")
def runner():
    spec = importlib.util.spec_from_file_location("polyglot_run", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(120)
def test_node_and_flask_call_each_other_over_mutual_tls_in_one_trace():
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    caller = r"spiffe://[0-9a-f-]{36}\.consul/ns/default/dc/dc1/svc"
    assert re.search(rf"^orders \(Node\) +called prices \(Flask\) as {caller}/orders$", done.stdout, re.MULTILINE)
    assert re.search(rf"^prices \(Flask\) +called orders \(Node\) +as {caller}/prices$", done.stdout, re.MULTILINE)
    spans = re.findall(r"^  (\w+) +([0-9a-f]{16})  parent ([0-9a-f]{16}|-) ", done.stdout, re.MULTILINE)
    assert [service for service, _, _ in spans] == ["orders", "prices", "prices", "prices", "orders"]
    assert [parent for _, _, parent in spans] == ["-", *(span for _, span, _ in spans[:-1])], "no link is missing"
    hops = re.findall(r"^  (\w+ → \w+) +(\w+) asks (\w+) for (\S+)$", done.stdout, re.MULTILINE)
    assert sorted(hops) == [
        ("SDK → sidecar", "prices", "orders", "/stock/7"),
        ("sidecar → SDK", "orders", "prices", "/price/7"),
    ]


def test_it_fails_loudly_without_node(tmp_path):
    done = run(PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "FAILED: no node on the PATH: install Node 18 or later\n"


def test_a_part_that_ends_early_is_said_with_what_it_wrote(runner, tmp_path, capsys):
    process = runner.Process("orders", ["sh", "-c", "echo no, not today; exit 3"], {}, tmp_path)
    process._running.wait(10)
    with pytest.raises(runner.Broken, match="orders has ended with 3"), runner.telling([process]):
        process.check()
    assert "no, not today" in capsys.readouterr().err


def test_a_span_without_its_parent_is_a_broken_trace(runner):
    ids = "abcde"
    whole = [{"id": each, "parent": parent} for each, parent in zip(ids, [None, *ids], strict=False)]
    assert runner.in_order(whole[::-1]) == whole
    for missing in range(len(whole)):
        with pytest.raises(runner.Broken, match="the trace is broken"):
            runner.in_order([*whole[:missing], *whole[missing + 1 :]])
    with pytest.raises(runner.Broken, match="0 of its 0"):
        runner.in_order([])


def test_another_caller_is_not_taken_for_the_right_one(runner):
    assert runner.identity("By=spiffe://m/svc/prices;URI=spiffe://m/svc/orders", "orders") == "spiffe://m/svc/orders"
    for wrong in (None, "", "By=spiffe://m/svc/orders;URI=spiffe://m/svc/other", "spiffe://m/svc/myorders"):
        with pytest.raises(runner.Broken, match="not orders"):
            runner.identity(wrong, "orders")


def test_the_first_line_installs_what_it_needs():
    (folder, extras) = re.fullmatch(r"pip install -e '(.*)\[([\w,]+)\]'", FIRST).groups()
    project = tomllib.loads((FOLDER / folder / "pyproject.toml").read_text())["project"]
    known = project["optional-dependencies"]
    assert {"examples", "otel", "sidecar"} == {*extras.split(",")} <= {*known}
    installed = " ".join(each for extra in extras.split(",") for each in [*known[extra], *known["server"]])
    assert all(name in installed for name in ("flask", "gunicorn", "opentelemetry-sdk", "uvloop"))

"""What is asked of the allocator: set for the process that serves, and for no other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshsdk_sidecar.allocator import with_ours, without_ours
from tests.real_consul import free_ports
from tests.sidecar.conftest import ROOT, environment, wait

THRESHOLD = "MALLOC_TRIM_THRESHOLD_"

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes in /proc")


def variables(pid: int) -> set[str]:
    return {line.partition("=")[0] for line in Path(f"/proc/{pid}/environ").read_text().split("\0")}


def test_what_somebody_has_set_stands_and_goes_on_to_the_app():
    theirs = {"PATH": "/bin", THRESHOLD: "7"}
    ours = with_ours(theirs)
    assert ours[THRESHOLD] == "7"
    assert without_ours(ours) == theirs
    assert without_ours(with_ours({"PATH": "/bin"})) == {"PATH": "/bin"}


APP = "import os, time; print('app', os.getpid()); time.sleep(60)"


@contextmanager
def as_the_command_begins_it(tmp_path: Path, consul: str) -> Iterator[tuple[int, int]]:
    """A sidecar and its app, by their processes' numbers."""
    file, log = tmp_path / "sidecar.yaml", tmp_path / "sidecar.log"
    out, admin = free_ports(2)
    file.write_text(f"service: {{name: legacy}}\noutbound: {{port: {out}}}\nadmin: {{port: {admin}}}\n")
    words = ["-m", "meshsdk.cli", "sidecar", "-c", str(file), "--exec", "--", sys.executable, "-u", "-c", APP]
    with log.open("wb") as to:
        process = subprocess.Popen(
            [sys.executable, "-P", *words], env=environment(tmp_path, consul), cwd=ROOT, stdout=to, stderr=to
        )
    try:
        wait(lambda: "app " in log.read_text(), log)
        yield process.pid, int(log.read_text().partition("app ")[2].split()[0])
    finally:
        process.kill()
        process.wait()


def test_the_process_that_serves_has_it_and_its_app_has_not(tmp_path, dev_agent):
    with as_the_command_begins_it(tmp_path, dev_agent.url) as (sidecar, app):
        assert THRESHOLD in variables(sidecar)
        assert THRESHOLD not in variables(app)

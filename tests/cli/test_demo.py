"""`meshsdk demo` as a user runs it: what it promises is in its output, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
MARK = "MESH_DEMO_TEST"


def begin(tmp_path: Path) -> subprocess.Popen[str]:
    """Start it with a temporary folder of its own, and a variable that its children inherit."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESH_", "CONSUL_"))}
    env = kept | {"TMPDIR": str(tmp_path), MARK: str(tmp_path), "COLUMNS": "100", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "meshsdk.cli", "demo"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def descendants(tmp_path: Path) -> list[int]:
    """Processes that carry our variable, whoever their parent is by now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"{MARK}={tmp_path}".encode() in variables:
            found.append(int(folder.name))
    return found


def test_it_keeps_its_promises(tmp_path):
    demo = begin(tmp_path)
    out, err = demo.communicate(timeout=40)
    assert demo.returncode == 0, out + err
    assert err == ""
    assert "\x1b" not in out
    assert max(len(line) for line in out.splitlines()) <= 100

    (instances,) = re.findall(r"payments +3 instances at :(\d+) :(\d+) :(\d+)", out)
    assert re.search(r"checkout +1 instance at :\d+", out)
    assert "charged 107" in out
    loads = re.findall(r"300 calls +(\d+) failed((?:  :\d+ × \d+)+)", out)
    assert [failed for failed, _ in loads] == ["0"] * 4
    balanced, crashed, *routed_around = [set(re.findall(r":(\d+) ×", shares)) for _, shares in loads]
    # Where one was slow for a moment, peak EWMA sends the calls of the next seconds to the others.
    assert balanced <= set(instances)
    assert len(balanced) >= 2
    assert crashed <= set(instances)
    (victim,) = re.findall(r"kill -9 of payments at :(\d+)", out)
    for answered in routed_around:
        assert answered
        assert answered <= set(instances) - {victim}
    (obeyed,) = re.findall(r"obeyed +(\d+) ms after the write", out)
    assert int(obeyed) < 1000
    assert "followed again" in out
    (took,) = re.findall(r"All as promised, in (\d+) s", out)
    assert int(took) <= 20  # 6 on a machine with nothing else to do

    assert descendants(tmp_path) == []
    assert not list(tmp_path.glob("meshsdk-demo-*"))


def test_a_signal_ends_all_of_it(tmp_path):
    """SIGTERM is handed on as SIGINT, so this is Ctrl-C's way too."""
    demo = begin(tmp_path)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "payments" in line:  # its services run now
            break
    assert len(descendants(tmp_path)) > 4
    demo.send_signal(signal.SIGTERM)
    _, err = demo.communicate(timeout=20)
    assert demo.returncode == 130
    assert "Traceback" not in err
    end = time.monotonic() + 5
    while left := descendants(tmp_path):
        assert time.monotonic() < end, left
        time.sleep(0.05)
    assert not list(tmp_path.glob("meshsdk-demo-*"))

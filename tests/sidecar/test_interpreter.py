"""How Python is started for a process that serves: without docstrings where it was compiled without them."""

from __future__ import annotations

import os
import py_compile
import re
import subprocess
import sys
from pathlib import Path

import pytest

from meshsdk_sidecar import interpreter
from tests.real_consul import free_ports
from tests.sidecar.conftest import ROOT, Sidecar, environment


@pytest.fixture
def package(tmp_path, monkeypatch) -> str:
    """Ours, in a place where nothing is compiled."""
    copy = tmp_path / "interpreter.py"
    copy.write_text("")
    monkeypatch.setattr(interpreter, "__file__", str(copy))
    return str(copy)


def test_it_is_started_apart_from_the_current_folder(package):
    assert interpreter.serving("a.module") == [sys.executable, "-P", "-m", "a.module"]


@pytest.mark.parametrize(("optimize", "lean"), [(0, False), (1, False), (2, True)])
def test_docstrings_are_left_out_where_it_was_compiled_without_them(package, optimize, lean):
    py_compile.compile(package, optimize=optimize)
    assert interpreter.serving("a.module") == [sys.executable, "-P", *["-OO"] * lean, "-m", "a.module"]


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at a process in /proc")
def test_a_sidecar_serves_without_them(tmp_path, dev_agent):
    out, admin = free_ports(2)
    config, log, cache = (tmp_path / name for name in ("sidecar.yaml", "sidecar.log", "cache"))
    config.write_text(f"service: {{name: lean}}\noutbound: {{port: {out}}}\nadmin: {{port: {admin}}}\n")
    settings = {**environment(tmp_path, dev_agent.url), "PYTHONPYCACHEPREFIX": str(cache)}
    settings.pop("PYTHONDONTWRITEBYTECODE", None)
    import_ours = [sys.executable, "-P", "-OO", "-c", "import meshsdk_sidecar.interpreter"]
    subprocess.run(import_ours, env=settings, cwd=ROOT, check=True)
    with log.open("wb") as to:
        words = [sys.executable, "-P", "-m", "meshsdk.cli", "sidecar", "-c", str(config)]
        process = subprocess.Popen(words, env=settings, cwd=ROOT, stdout=to, stderr=to)
    try:
        Sidecar(process, out, admin, 0, log, dev_agent.url).until_ready()
        started = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        assert b"-OO" in started
    finally:
        process.kill()
        process.wait()


def test_the_image_is_compiled_so(tmp_path):
    image = (ROOT / "sidecar" / "deploy" / "Dockerfile").read_text()
    modules = dict(re.findall(r'(serving|gateway)="([^"]+)"', image))
    assert '/opt/meshsdk/bin/python -OO -c "import $serving, $gateway"' in image
    words = [sys.executable, "-P", "-OO", "-c", f"import {modules['serving']}, {modules['gateway']}"]
    subprocess.run(words, cwd=ROOT, env={**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}, check=True)

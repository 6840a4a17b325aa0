"""What carries requests is imported where a Mesh is made, not in the background while a server forks."""

from __future__ import annotations

import subprocess
import sys

ONE = """
import sys
from meshsdk import Mesh
assert "httpx" not in sys.modules
Mesh("one")
assert "meshsdk_registry.over_httpx" in sys.modules
"""

OTHER = """
import sys
from meshsdk_registry import Consul, transport
made = []
transport.carry_by(lambda *given: made.append(given))
transport.prepare()
Consul("http://127.0.0.1:8500", timeout=2.0)
assert [(given[0].port, given[2:]) for given in made] == [(8500, (2.0, transport.MAX_CONNECTIONS))]
assert "httpx" not in sys.modules
"""


def test_it_is_there_before_anything_runs_in_the_background():
    subprocess.run([sys.executable, "-c", ONE], check=True)


def test_a_process_with_another_one_never_imports_httpx():
    subprocess.run([sys.executable, "-c", OTHER], check=True)

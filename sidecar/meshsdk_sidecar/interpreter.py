"""How Python is started for a process that serves."""

from __future__ import annotations

import sys
from importlib.util import cache_from_source
from pathlib import Path

__all__ = ["serving"]


def serving(module: str) -> list[str]:
    """The words of a command that runs `module` as a process that serves.

    What lies in the current folder may be the service's, and must not be imported in place of a library (-P).

    Docstrings, 2.5 MiB of memory for a process's life, are left out (-OO) where this package was compiled without them,
    as in the image: Python has files of their own for that, `*.opt-2.pyc`. Where there are none, each start would have
    to compile every module, which takes more memory than is saved (docs/decisions/0023).
    """
    lean = ["-OO"] if Path(cache_from_source(__file__, optimization=2)).exists() else []
    return [sys.executable, "-P", *lean, "-m", module]

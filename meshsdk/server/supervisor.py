"""Whether somebody will put another worker in our place.

A worker that ends leaves its instance in Consul when its parent goes on holding the port: connections wait in the
kernel until the next worker takes them. gunicorn's master closes the port before it stops its workers for good, and
keeps it while it recycles or reloads them. uvicorn's keeps it in every case; there a worker that ends without a signal
is recycled, and one that got a signal is either the last or has a sibling that serves already.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["holds_port", "will_replace"]

_LISTEN = "0A"  # TCP_LISTEN in the kernel's tables


def will_replace(port: int, *, signalled: bool) -> bool:
    """Whether our parent will start another worker for the port.

    Args:
        signalled: this process was told to end, it did not come to an end by itself.
    """
    return (not signalled or "gunicorn.arbiter" in sys.modules) and holds_port(os.getppid(), port)


def holds_port(pid: int, port: int, proc: Path = Path("/proc")) -> bool:
    """Whether a process has a socket that listens on a TCP port; False where the system does not tell.

    Args:
        proc: the kernel's tables (Linux).
    """
    inodes = _listening(proc, port)
    try:
        entries = list((proc / str(pid) / "fd").iterdir())
    except OSError:
        return False
    return any(_target(entry) in inodes for entry in entries)


def _target(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except OSError:  # closed meanwhile
        return ""


def _listening(proc: Path, port: int) -> set[str]:
    found: set[str] = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        rows = (line.split() for line in lines)
        found |= {
            f"socket:[{row[9]}]" for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port
        }
    return found

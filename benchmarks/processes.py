"""What processes have used so far, their children included: CPU seconds and memory, as the kernel counts them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "usage"]

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """The sum over some processes.

    Attributes:
        cpu: seconds, of children that have ended too.
        resident, peak: MiB now, and at the most (VmRSS, VmHWM); pages that processes share count for each of them.
    """

    cpu: float
    resident: float
    peak: float


def usage(pids: Iterable[int]) -> Usage:
    """What these processes and all that descend from them use.

    Raises:
        FileNotFoundError: one of `pids` has ended.
    """
    of = list(pids)
    known = {pid: _stat(pid) for pid in of}
    known |= _descendants(of)
    memory = [_status(pid) for pid in known]
    return Usage(
        sum(sum(map(int, fields[11:15])) for fields in known.values()) / _TICKS,
        sum(fields.get("VmRSS", 0) for fields in memory) / 1024,
        sum(fields.get("VmHWM", 0) for fields in memory) / 1024,
    )


def _descendants(of: list[int]) -> dict[int, list[str]]:
    every = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                every[int(entry.name)] = _stat(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
    found: dict[int, list[str]] = {}
    parents = set(of)
    while parents:
        children = {pid: fields for pid, fields in every.items() if int(fields[1]) in parents}
        found |= children
        parents = set(children)
    return found


def _stat(pid: int) -> list[str]:
    """The fields from the third on: the second is the program's name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _status(pid: int) -> dict[str, int]:
    """The fields in kB; none of a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {line.partition(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}

"""Load on a port of the loopback: as much as it takes (wrk), or so many requests per second (paced.c)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.wire.real_servers import binary

__all__ = ["Aim", "Load", "build_paced", "full", "paced", "paced_command", "read_paced"]

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_SEED = 5


@dataclass(frozen=True)
class Aim:
    """What is asked for: a port of the loopback, a path there, and the Host field, which names a service."""

    port: int
    target: str
    host: str


@dataclass(frozen=True)
class Load:
    """What came of it.

    Attributes:
        done: requests answered with 200.
        rate: of these, per second.
        p50, p99: seconds.
        failed: requests without such an answer.
        why: of what kind they were, and the first of them where it is known.
    """

    done: int
    rate: float
    p50: float
    p99: float
    failed: int
    why: str


def full(aim: Aim, connections: int, seconds: int) -> Load:
    """Send on every connection as soon as the last answer came, with wrk.

    Raises:
        RuntimeError: wrk ended otherwise than with figures.
    """
    command = [binary("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
    command += ["-H", f"Host: {aim.host}", f"http://127.0.0.1:{aim.port}{aim.target}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    out = ended.stdout
    found = {
        name: re.search(pattern, out, re.MULTILINE)
        for name, pattern in (
            ("p50", r"^ +50% +([\d.]+)(\w+)"),
            ("p99", r"^ +99% +([\d.]+)(\w+)"),
            ("done", r"^ +(\d+) requests in"),
            ("rate", r"^Requests/sec: +([\d.]+)"),
        )
    }
    p50, p99, done, rate = (found[name] for name in ("p50", "p99", "done", "rate"))
    if p50 is None or p99 is None or done is None or rate is None:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}: {out}{ended.stderr}")
    failed, why = _failures(out)
    return Load(int(done[1]), float(rate[1]), _seconds(p50), _seconds(p99), failed, why)


def _seconds(found: re.Match[str]) -> float:
    return float(found[1]) * _UNITS[found[2]]


def _failures(out: str) -> tuple[int, str]:
    lines = [line.strip() for line in out.splitlines() if "Non-2xx" in line or "Socket errors" in line]
    return sum(int(number) for line in lines for number in re.findall(r" (\d+)", line)), "; ".join(lines)


def build_paced(folder: Path) -> Path:
    """Compile the generator into `folder`.

    Raises:
        FileNotFoundError: there is no C compiler.
    """
    if (compiler := shutil.which("cc")) is None:
        raise FileNotFoundError("no C compiler on the PATH, which the paced load needs: install gcc, or leave it out")
    program = folder / "paced"
    subprocess.run([compiler, "-O2", "-o", program, Path(__file__).with_name("paced.c"), "-lm"], check=True, timeout=60)
    return program


def paced_command(program: Path, aim: Aim, connections: int, rate: float, *, seconds: float, every: float) -> list[str]:
    """The command that sends `rate` requests per second and prints a line every so many seconds."""
    numbers = f"{connections} {rate:.3f} {seconds} {every} {_SEED}".split()
    return [str(program), str(aim.port), aim.target, aim.host, *numbers]


def read_paced(line: str) -> Load:
    """What a line of the generator says."""
    told = json.loads(line)
    kinds = ", ".join(f"{kind} {count}" for kind, count in told["kinds"].items() if count)
    why = f"{kinds}: {told['first']}" if told["failed"] else ""
    rate = told["done"] / told["seconds"]
    return Load(told["done"], rate, told["p50"] / 1e6, told["p99"] / 1e6, told["failed"], why)


def paced(program: Path, aim: Aim, connections: int, rate: float, seconds: int) -> Load:
    """Send so many requests per second, at random moments; latency counts from when a request was due."""
    command = paced_command(program, aim, connections, rate, seconds=seconds, every=seconds + 60)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    return read_paced(ended.stdout)

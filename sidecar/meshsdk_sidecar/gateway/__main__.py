"""The serving process: `python -m meshsdk_sidecar.gateway -c FILE`, as `meshsdk gateway` becomes it."""

from __future__ import annotations

import sys

from meshsdk_sidecar.command import begin
from meshsdk_sidecar.gateway.app import run

__all__ = ["main"]

USAGE = "usage: python -m meshsdk_sidecar.gateway -c FILE [--workers N] [--replace]"


def main(arguments: list[str]) -> int:
    """Run a gateway; return the exit code: 0 once drained, and those of `begin`."""
    return begin(arguments, USAGE, run, execs=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

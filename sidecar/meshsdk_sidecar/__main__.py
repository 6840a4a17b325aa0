"""The serving process: `python -m meshsdk_sidecar -c FILE`, as `meshsdk sidecar` becomes it."""

from __future__ import annotations

import sys

from meshsdk_sidecar.app import run
from meshsdk_sidecar.command import begin

__all__ = ["main"]

USAGE = "usage: python -m meshsdk_sidecar -c FILE [--workers N] [--replace | --exec -- COMMAND …]"


def main(arguments: list[str]) -> int:
    """Run a sidecar; return the exit code: its child's, else 0 once drained, and those of `begin`."""
    return begin(arguments, USAGE, run, execs=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The serving process: `python -m meshsdk_sidecar -c FILE`, as `meshsdk sidecar` becomes it.

A command line of its own, as small as it can be: typer and rich would stay in memory for the life of every sidecar.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from meshsdk.errors import ConfigError, MeshError

__all__ = ["main"]

USAGE = "usage: python -m meshsdk_sidecar -c FILE [--workers N] [--replace | --exec -- COMMAND …]"


def main(arguments: list[str]) -> int:
    """Run a sidecar; return the exit code: its child's, else 0 once drained, 2 for a mistake in the file or usage, 1
    where it was to replace another that goes on.
    """
    from meshsdk_sidecar.app import run

    try:
        file, ways = _read(arguments)
        return run(file, **ways)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for who started it
        return 2
    except MeshError as error:  # `NotReplaced`, which is not imported where nothing is replaced
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for who started it
        return 1


def _read(arguments: list[str]) -> tuple[Path, dict[str, Any]]:
    """The file, and the arguments of `run`."""
    match arguments:
        case ["-c", file, "--workers", count, *rest] if count.isdecimal():
            return Path(file), {"workers": int(count), **_ways(rest)}
        case ["-c", file, *rest]:
            return Path(file), _ways(rest)
        case _:
            raise ConfigError(USAGE)


def _ways(rest: list[str]) -> dict[str, Any]:
    match rest:
        case []:
            return {}
        case ["--replace"]:
            return {"replace": True}
        case ["--exec", "--", *command]:
            return {"command": command}
        case _:
            raise ConfigError(USAGE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The serving process: `python -m meshsdk_sidecar.gateway -c FILE`, as `meshsdk gateway` becomes it.

As for the sidecar, a command line as small as it can be: typer and rich would stay in memory for the gateway's life.
"""

from __future__ import annotations

import sys
from pathlib import Path

from meshsdk.errors import ConfigError
from meshsdk_sidecar.gateway.app import run

__all__ = ["main"]

USAGE = "usage: python -m meshsdk_sidecar.gateway -c FILE"


def main(arguments: list[str]) -> int:
    """Run a gateway; return the exit code: 0 once drained, 2 for a mistake in the file or usage."""
    try:
        return run(_read(arguments))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for who started it
        return 2


def _read(arguments: list[str]) -> Path:
    match arguments:
        case ["-c", file]:
            return Path(file)
        case _:
            raise ConfigError(USAGE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

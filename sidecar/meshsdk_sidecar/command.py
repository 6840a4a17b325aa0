"""The command line of a serving process, as small as it can be: typer and rich would stay in memory for its life."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from meshsdk.config import environment
from meshsdk.errors import ConfigError, MeshError
from meshsdk_sidecar.allocator import with_ours
from meshsdk_sidecar.interpreter import serving

__all__ = ["become", "begin"]


def become(
    module: str, file: Path, *, replace: bool = False, workers: int | None = None, command: Sequence[str] | None = None
) -> NoReturn:
    """Replace this process by one that serves: what a person's command line imports would stay in memory for its life.

    Args:
        module: what serves; it hands this command line to `begin`.
        file: its file.
        replace: whether it takes over from one that runs.
        workers: processes that serve; None for what the file says.
        command: to be run as a child; None for none.

    Raises:
        OSError: the interpreter cannot be started.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    words = [] if workers is None else ["--workers", str(workers)]
    words += ["--replace"] if replace else []
    words += [] if command is None else ["--exec", "--", *command]
    written = [*serving(module), "-c", str(file), *words]
    os.execve(sys.executable, written, with_ours(environment()))


def begin(arguments: Sequence[str], usage: str, run: Callable[..., int], *, execs: bool) -> int:
    """Run a process; return its exit code, 2 for a mistake in the file or usage, 1 where it was to replace another that
    goes on.

    Args:
        usage: what to write.
        run: does it, given the file and, by name, `replace`, `workers` and `command` where they are written.
        execs: whether a command may be run as a child.
    """
    try:
        file, ways = _read(arguments, usage, execs=execs)
        return run(file, **ways)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for who started it
        return 2
    except MeshError as error:  # `NotReplaced`, which is not imported where nothing is replaced
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for who started it
        return 1


def _read(arguments: Sequence[str], usage: str, *, execs: bool) -> tuple[Path, dict[str, Any]]:
    match list(arguments):
        case ["-c", file, "--workers", count, *rest] if count.isdecimal():
            return Path(file), {"workers": int(count), **_ways(rest, usage, execs=execs)}
        case ["-c", file, *rest]:
            return Path(file), _ways(rest, usage, execs=execs)
        case _:
            raise ConfigError(usage)


def _ways(rest: list[str], usage: str, *, execs: bool) -> dict[str, Any]:
    match rest:
        case []:
            return {}
        case ["--replace"]:
            return {"replace": True}
        case ["--exec", "--", *command] if execs:
            return {"command": command}
        case _:
            raise ConfigError(usage)

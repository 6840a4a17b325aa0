"""Where a sidecar begins: as the command that a person gives, and as the process that serves.

The two are not one, because what the command line imports is half of what a sidecar needs to serve, and would stay in
memory for its life. What serves is imported when it is about to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from meshsdk_sidecar import child
from meshsdk_sidecar import command as command_line
from meshsdk_sidecar.config import Config
from meshsdk_sidecar.file import load
from meshsdk_sidecar.start import serve, with_workers

if TYPE_CHECKING:
    from meshsdk_sidecar.handover import Predecessor
    from meshsdk_sidecar.lifecycle import Lifecycle
    from meshsdk_sidecar.sockets import Sockets

__all__ = ["become", "run"]


def become(
    file: Path, command: Sequence[str] | None = None, *, replace: bool = False, workers: int | None = None
) -> NoReturn:
    """Replace this process by a sidecar.

    Args:
        command: the service, to be run as a child; None where somebody else runs it.
        replace: take over from the sidecar of the same instance that runs, if one does.
        workers: processes that serve; None for what the file says.

    Raises:
        ConfigError: the file has mistakes, or there is no such program.
    """
    _check(file, command, workers)
    command_line.become("meshsdk_sidecar", file, replace=replace, workers=workers, command=command)


def run(file: Path, command: Sequence[str] | None = None, *, replace: bool = False, workers: int | None = None) -> int:
    """Serve until SIGTERM or SIGINT, or until the child has ended; return the exit code.

    Args:
        command, replace, workers: as of `become`.

    Raises:
        ConfigError: the file has mistakes, a port is taken, or there is no such program.
        NotReplaced: the sidecar that was to be replaced goes on serving.
    """
    config = _check(file, command, workers)

    def make(listening: Sockets, before: Predecessor | None) -> Lifecycle:
        from meshsdk_sidecar.process import Sidecar

        return Sidecar(config, listening, command, before)

    return serve(config, make, replace=replace, kind="sidecar")


def _check(file: Path, command: Sequence[str] | None, workers: int | None) -> Config:
    config = with_workers(load(file), workers)
    if command is not None:
        child.check(command)
    return config

"""`meshsdk sidecar -c FILE`: the mesh for a service in another language."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meshsdk.cli.console import codes, part_of
from meshsdk.errors import ConfigError

__all__ = ["EXITS", "sidecar"]

EXITS = codes(
    "stopped by SIGTERM or Ctrl-C, drained (with --exec: the command's own exit code)", "it broke off", consul=False
)


def sidecar(
    config: Annotated[Path, typer.Option("-c", "--config", help="The sidecar's YAML file.", metavar="FILE")],
    *,
    exec_: Annotated[
        bool,
        typer.Option("--exec", help="Run the service as a child: started after the sidecar, ended after the drain."),
    ] = False,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND]", help="The service to run, with --exec.")
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Take over from the sidecar of the same instance that runs: no connection is refused."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", help="Processes that serve, on as many cores; else what the file says."),
    ] = None,
) -> None:
    """Run a sidecar beside a service: it is registered, reached over mTLS, and calls others through the mesh."""
    if bool(command) != exec_:
        wanted = "write --exec before --" if command else "write the command after --, such as: --exec -- node app.js"
        raise ConfigError(f"--exec and a command go together: {wanted}")
    if replace and exec_:
        raise ConfigError("--replace and --exec exclude each other: the command that runs would be started once more")
    with part_of("sidecar"):
        from meshsdk_sidecar.app import become
    become(config, command, replace=replace, workers=workers)

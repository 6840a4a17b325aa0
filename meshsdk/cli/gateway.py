"""`meshsdk gateway -c FILE`: the way into the mesh from outside."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from meshsdk.cli.console import codes
from meshsdk.errors import ConfigError

__all__ = ["EXITS", "gateway"]

EXITS = codes("stopped by SIGTERM or Ctrl-C, drained", "it broke off", consul=False)


def gateway(
    config: Annotated[Path, typer.Option("-c", "--config", help="The gateway's YAML file.", metavar="FILE")],
    *,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Take over from the gateway of the same name and port that runs: no connection is refused.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", help="Processes that serve, on as many cores; else what the file says."),
    ] = None,
) -> None:
    """Let clients from outside in: public TLS ends here, and hosts and paths lead to services of the mesh."""
    for module in ("meshsdk_sidecar", "httptools"):
        if find_spec(module) is None:
            raise ConfigError(f"this command needs {module}, which is not installed: pip install 'meshsdk[sidecar]'")
    from meshsdk_sidecar.command import become

    become("meshsdk_sidecar.gateway", config, replace=replace, workers=workers)

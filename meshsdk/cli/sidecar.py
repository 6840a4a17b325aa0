"""`meshsdk sidecar -c FILE`: the mesh for a service in another language."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meshsdk.cli.console import codes, part_of

__all__ = ["EXITS", "sidecar"]

EXITS = codes("stopped by SIGTERM or Ctrl-C, drained", "it broke off", consul=False)


def sidecar(
    config: Annotated[Path, typer.Option("-c", "--config", help="The sidecar's YAML file.", metavar="FILE")],
) -> None:
    """Run a sidecar beside a service: it is registered, and its outgoing calls go through the mesh."""
    with part_of("sidecar"):
        from meshsdk_sidecar.app import run
    run(config)

"""`meshsdk sidecar -c FILE`: the mesh for a service in another language."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["sidecar"]


def sidecar(config: Annotated[Path, typer.Option("-c", "--config", help="The sidecar's YAML file.")]) -> None:
    """Run a sidecar beside a service: it is registered, and its outgoing calls go through the mesh."""
    from meshsdk_sidecar.app import run

    run(config)

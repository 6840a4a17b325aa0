"""Where a gateway begins: its file, and what serves by it, imported when it is about to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from meshsdk_sidecar.gateway.file import load
from meshsdk_sidecar.start import serve, with_workers

if TYPE_CHECKING:
    from meshsdk_sidecar.handover import Predecessor
    from meshsdk_sidecar.lifecycle import Lifecycle
    from meshsdk_sidecar.sockets import Sockets

__all__ = ["run"]


def run(file: Path, *, replace: bool = False, workers: int | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Args:
        replace: take over from the gateway of the same instance that runs, if one does.
        workers: processes that serve; None for what the file says.

    Raises:
        ConfigError: the file has mistakes, a certificate cannot be used, or a port is taken.
        NotReplaced: the gateway that was to be replaced goes on serving.
    """
    config = with_workers(load(file), workers)

    def make(listening: Sockets, before: Predecessor | None) -> Lifecycle:
        from meshsdk_sidecar.gateway.process import Gateway

        return Gateway(config, listening, before)

    return serve(config, make, replace=replace, kind="gateway")

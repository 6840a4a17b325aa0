"""Where a gateway begins: its file, its sockets, its loop."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from meshsdk_sidecar import sockets
from meshsdk_sidecar.gateway.file import load
from meshsdk_sidecar.loops import loop_factory

__all__ = ["run"]


def run(file: Path) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Raises:
        ConfigError: the file has mistakes, a certificate cannot be used, or a port is taken.
    """
    config = load(file)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    listening = sockets.open_sockets(config.listening())
    try:
        from meshsdk_sidecar.gateway.process import Gateway

        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(Gateway(config, listening).run())
    finally:
        sockets.close(listening)
        if config.admin.socket is not None:
            Path(config.admin.socket).unlink(missing_ok=True)

"""Where a sidecar begins: as the command that a person gives, and as the process that serves.

The two are not one, because what the command line imports is half of what a sidecar needs to serve, and would stay in
memory for its life. What serves is imported when it is about to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from meshsdk_sidecar import child, sockets
from meshsdk_sidecar.config import Config
from meshsdk_sidecar.file import load

__all__ = ["become", "run"]


def become(file: Path, command: Sequence[str] | None = None) -> NoReturn:
    """Replace this process by a sidecar.

    Args:
        command: the service, to be run as a child; None where somebody else runs it.

    Raises:
        ConfigError: the file has mistakes, or there is no such program.
    """
    _check(file, command)
    sys.stdout.flush()
    sys.stderr.flush()
    words = [] if command is None else ["--exec", "--", *command]
    # -P: what lies in the current folder is the service's, and must not be imported in place of a library.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "meshsdk_sidecar", "-c", str(file), *words])


def run(file: Path, command: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, or until the child has ended; return the exit code.

    Args:
        command: as of `become`.

    Raises:
        ConfigError: the file has mistakes, a port is taken, or there is no such program.
    """
    config = _check(file, command)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    listening = sockets.open_sockets(config.listeners())
    try:
        from meshsdk_sidecar.process import Sidecar

        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(Sidecar(config, listening, command).run())
    finally:
        sockets.close(listening)
        if config.admin.socket is not None:
            Path(config.admin.socket).unlink(missing_ok=True)


def _check(file: Path, command: Sequence[str] | None) -> Config:
    config = load(file)
    if command is not None:
        child.check(command)
    return config


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed (the extra `sidecar`): it halves the cost of a small request."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop

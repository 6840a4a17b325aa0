"""How a process begins that serves, a sidecar's or a gateway's: its sockets, opened or taken over, and its loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace as replaced
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from meshsdk.errors import ConfigError
from meshsdk_sidecar import kinds, sockets
from meshsdk_sidecar.loops import new_loop

if TYPE_CHECKING:
    from socket import socket

    from meshsdk_sidecar.config import Config
    from meshsdk_sidecar.gateway.config import GatewayConfig
    from meshsdk_sidecar.handover import Predecessor
    from meshsdk_sidecar.lifecycle import Lifecycle
    from meshsdk_sidecar.place import Place

__all__ = ["OURS", "serve", "with_workers"]

log = logging.getLogger("meshsdk.sidecar")

F = TypeVar("F", "Config", "GatewayConfig")

OURS = ("admin", "probes")
"""Listeners of the control process, where there are workers."""


def with_workers(config: F, workers: int | None) -> F:
    """The file, with the number of workers that the command line says, if it does.

    Raises:
        ConfigError: there cannot be so many.
    """
    if workers is None:
        return config
    try:
        return replaced(config, workers=kinds.whole(1, 256)(workers))
    except ValueError as error:
        raise ConfigError(f"--workers {workers}: {error}") from error


def serve(
    config: F, make: Callable[[sockets.Sockets, Predecessor | None], Lifecycle], *, replace: bool, kind: str
) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Args:
        config: the file.
        make: what serves, at these sockets, in place of that process if there is one; imports what serving needs.
        replace: take over from the process of the same instance that runs, if one does.
        kind: what it is called in words.

    Raises:
        ConfigError: a port is taken, or there is no place to find the other process.
        NotReplaced: the process that was to be replaced goes on serving.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    before = _before(config, kind) if replace else None
    listening: sockets.Sockets = {}
    file = _Ours(config.admin.socket)
    sole = before is None  # whether nobody else serves at our places
    try:
        held = [] if before is None else [one for each in before.held.values() for one in each]
        listening = _listen(config, held)
        sockets.close({"": held})  # nobody listens there any more
        file.mark()
        with asyncio.Runner(loop_factory=new_loop) as runner:
            process = make(listening, before)
            code = runner.run(process.run())
            sole = not process.shared
            return code
    except ConfigError as error:
        if before is None:
            raise
        raise ConfigError(f"{error}\nprocess {before.pid} goes on serving") from error
    finally:
        sockets.close(listening)
        if before is not None:
            before.close()
        if sole:
            file.remove()


class _Ours:
    """The file of a unix socket, which is ours from when we listen there until another process does."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._inode: int | None = None

    def mark(self) -> None:
        """We listen there."""
        self._inode = self._now()

    def remove(self) -> None:
        """Nobody listens there; what stands there in its place, or stood there before, stays."""
        if self._path is not None and self._inode is not None and self._inode == self._now():
            Path(self._path).unlink(missing_ok=True)

    def _now(self) -> int | None:
        try:
            return None if self._path is None else Path(self._path).stat().st_ino
        except FileNotFoundError:
            return None


def _listen(config: F, held: list[socket]) -> sockets.Sockets:
    """Every worker has sockets of its own; the pages are the control process's alone. What is held is taken out."""
    if config.workers == 1:
        return sockets.open_sockets(config.listening(), held=held)
    places = config.listening()
    ours: dict[str, Place] = {name: places.pop(name) for name in OURS if name in places}
    found = sockets.open_sockets(ours, held=held)
    try:
        return found | sockets.open_several(places, config.workers, held=held)
    except ConfigError:
        sockets.close(found)
        raise


def _before(config: F, kind: str) -> Predecessor | None:
    """The process to replace; None where none runs."""
    from meshsdk.config import load as settings
    from meshsdk.server.workers import Alone
    from meshsdk_sidecar.handover import Predecessor, meeting_place

    try:
        before = Predecessor.find(meeting_place(settings(config.overrides()), config.meeting_port))
    except Alone as error:
        raise ConfigError(f"--replace: {error}; set MESH_RUNTIME_DIR to a short path that this user owns") from error
    if before is None:
        log.info("--replace: no %s of this instance runs, so nothing is taken over", kind)
    return before

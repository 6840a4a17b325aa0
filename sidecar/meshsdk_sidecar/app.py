"""Where a sidecar begins: as the command that a person gives, and as the process that serves.

The two are not one, because what the command line imports is half of what a sidecar needs to serve, and would stay in
memory for its life. What serves is imported when it is about to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace as replaced
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from meshsdk.errors import ConfigError
from meshsdk_sidecar import child, kinds, sockets
from meshsdk_sidecar.config import Config
from meshsdk_sidecar.file import load
from meshsdk_sidecar.loops import loop_factory
from meshsdk_sidecar.place import Place

if TYPE_CHECKING:
    from meshsdk_sidecar.handover import Predecessor

__all__ = ["become", "run"]

log = logging.getLogger("meshsdk.sidecar")


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
    sys.stdout.flush()
    sys.stderr.flush()
    words = [] if workers is None else ["--workers", str(workers)]
    words += ["--replace"] if replace else []
    words += [] if command is None else ["--exec", "--", *command]
    # -P: what lies in the current folder is the service's, and must not be imported in place of a library.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "meshsdk_sidecar", "-c", str(file), *words])


def run(file: Path, command: Sequence[str] | None = None, *, replace: bool = False, workers: int | None = None) -> int:
    """Serve until SIGTERM or SIGINT, or until the child has ended; return the exit code.

    Args:
        command, replace, workers: as of `become`.

    Raises:
        ConfigError: the file has mistakes, a port is taken, or there is no such program.
        NotReplaced: the sidecar that was to be replaced goes on serving.
    """
    config = _check(file, command, workers)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    before = _before(config) if replace else None
    listening: sockets.Sockets = {}
    sole = before is None  # whether nobody else serves at our places
    try:
        listening = _listen(config, {} if before is None else before.held)
        from meshsdk_sidecar.process import Sidecar

        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            sidecar = Sidecar(config, listening, command, before)
            code = runner.run(sidecar.run())
            sole = not sidecar.replaced
            return code
    except ConfigError as error:
        if before is None:
            raise
        raise _unreplaced(before, error) from error
    finally:
        sockets.close(listening)
        if before is not None:
            before.close()
        if config.admin.socket is not None and sole:
            Path(config.admin.socket).unlink(missing_ok=True)


def _listen(config: Config, held: sockets.Sockets) -> sockets.Sockets:
    """Every worker has sockets of its own; the pages are the control process's alone."""
    if config.workers == 1:
        return sockets.open_sockets(config.listeners(), held=held)
    places = config.listeners()
    ours: dict[str, Place] = {name: places.pop(name) for name in ("admin", "probes") if name in places}
    theirs = {name: held[name] for name in held if name not in ours}
    found = sockets.open_sockets(ours, held={name: held[name] for name in held if name in ours})
    try:
        return found | sockets.open_several(places, config.workers, held=theirs)
    except ConfigError:
        sockets.close(found)
        raise


def _before(config: Config) -> Predecessor | None:
    """The process to replace; None where none runs."""
    from meshsdk.config import load as settings
    from meshsdk.server.workers import Alone
    from meshsdk_sidecar.handover import Predecessor, meeting_place

    try:
        before = Predecessor.find(meeting_place(settings(config.overrides()), config))
    except Alone as error:
        raise ConfigError(f"--replace: {error}; set MESH_RUNTIME_DIR to a short path that this user owns") from error
    if before is None:
        log.info("--replace: no sidecar of this instance runs, so nothing is taken over")
    return before


def _unreplaced(before: Predecessor, error: ConfigError) -> ConfigError:
    return ConfigError(f"{error}\nprocess {before.pid} goes on serving")


def _check(file: Path, command: Sequence[str] | None, workers: int | None) -> Config:
    config = load(file)
    if workers is not None:
        try:
            config = replaced(config, workers=kinds.whole(1, 256)(workers))
        except ValueError as error:
            raise ConfigError(f"--workers {workers}: {error}") from error
    if command is not None:
        child.check(command)
    return config

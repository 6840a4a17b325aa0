"""`meshsdk run module:app`: an application under a real server, with the mesh's TLS on."""

from __future__ import annotations

import errno
import importlib
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from meshsdk.cli.console import codes, fail, part_of, say
from meshsdk.cli.target import load_target, spoken
from meshsdk.config import export, load
from meshsdk.errors import ConfigError, MeshError
from meshsdk.server.address import loopback
from meshsdk.server.entrance import entrances

__all__ = ["EXITS", "arguments", "run"]

EXITS = codes("stopped by SIGTERM or Ctrl-C, drained", "the port is taken, or the server broke off", consul=False)

DEFAULT_PORT = 8000
"""As uvicorn and gunicorn."""


def run(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The ASGI or WSGI application.")],
    rest: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- OPTIONS]", help="Options of the server's own: uvicorn's for ASGI, else gunicorn's."
        ),
    ] = None,
    *,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port; else the application's own Mesh or MESH_PORT says.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="The address of that port. ASGI: 127.0.0.1, as callers come in by a port of the mesh's own."
            " WSGI: all, as they come in by this one."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; else the server's configuration says, and 1.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of each process, WSGI only; else gunicorn's configuration says, and 8."),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start anew when the code changes; for development.")
    ] = False,
) -> None:
    """Serve an application with the mesh around it: uvicorn for ASGI, gunicorn for WSGI.

    An application without a Mesh of its own gets one, as MESH_SERVICE and the other settings say.
    """
    if reload and workers is not None and workers > 1:
        raise ConfigError("--reload starts one process anew: leave --workers out, or --reload")
    sys.path.insert(0, str(Path.cwd()))
    if port is not None:
        export(MESH_PORT=str(port))
    app = load_target(target)
    kind = spoken(app)
    port = _port(port)
    name = _served(target, port)
    address = host or ("127.0.0.1" if kind == "asgi" or _on_loopback() else "0.0.0.0")
    _check_free(address, port)
    with part_of("server"):
        importlib.import_module("uvicorn" if kind == "asgi" else "gunicorn")
    say(f"{target} ({kind.upper()}) at http://{address}:{port}")
    words = arguments(kind, name, address, port, workers=workers, threads=threads, reload=reload)
    sys.stdout.flush()
    sys.stderr.flush()
    # In place of this process: signals, the exit code and everything it writes are the server's own.
    os.execv(sys.executable, [sys.executable, "-m", *words, *(rest or ())])


def arguments(
    kind: str, name: str, host: str, port: int, *, workers: int | None, threads: int | None, reload: bool
) -> list[str]:
    """The server's command line, without the interpreter.

    Args:
        kind: `asgi` or `wsgi`.
        name: what to serve, as `module:attribute`.
        workers: None leaves it to the server's own configuration; so does `threads`.
    """
    processes = [] if workers is None else ["--workers", str(workers)]
    anew = ["--reload"] if reload else []
    if kind == "asgi":
        return ["uvicorn", name, "--host", host, "--port", str(port), *(anew or processes)]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    at_once = [] if threads is None else ["--threads", str(threads)]
    words = ["meshsdk.cli.gunicorned", name, "--bind", address, "--no-control-socket"]
    return [*words, *processes, *at_once, *anew]


def _port(given: int | None) -> int:
    """The port that is said to callers must be the one that is served."""
    own = next((entrance.port for entrance in entrances() if entrance.port is not None), None)
    if given is not None and own not in {None, given}:
        raise ConfigError(f"--port {given}, and the application's Mesh says port={own}: give one of them")
    return own or given or load({"service": "meshsdk-run"}).port or DEFAULT_PORT


def _served(target: str, port: int) -> str:
    """What the server imports: the application itself, if it has a Mesh that knows its port."""
    if entrances():
        if all(entrance.port is None for entrance in entrances()):
            say("hint: the application's Mesh has no port, so nobody is told of it: give --port, MESH_PORT or port=")
        return target
    export(MESH_PORT=str(port), MESH_RUN_TARGET=target)
    try:
        load({})
    except MeshError as error:
        raise ConfigError(f"{target} has no Mesh, and none can be made for it from the settings: {error}") from error
    return "meshsdk.cli.served:app"


def _on_loopback() -> bool:
    return bool(loopback(load({"service": "meshsdk-run"}).address))


def _check_free(host: str, port: int) -> None:
    """Before the server does: gunicorn tries five times and fills the screen."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        hint = "give another --port, or end what uses this one" if taken else "give another --host or --port"
        fail(f"cannot listen at {host}:{port}: {error.strerror or error}", hint)
        raise typer.Exit(1) from error

"""Mesh TLS on gunicorn's own port, by one line in its configuration: `from meshsdk.server.gunicorn import *`.

For its `sync` and `gthread` workers. Under ASGI workers the application is told nothing of certificates; there the mesh
opens a port of its own beside gunicorn's, and this changes nothing. A configuration that has hooks `on_starting` or
`on_reload` of its own calls these from them.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from functools import cache
from typing import Any

from meshsdk.server.entrance import entrance_at

__all__ = ["on_reload", "on_starting", "ssl_context", "take_tls"]

log = logging.getLogger("meshsdk.server")

_THREADED = frozenset(("sync", "gthread"))


class _Door:
    """Stands where gunicorn wants a context: the application, and so its Mesh, is known at the first connection."""

    def wrap_socket(self, sock: socket.socket, **options: Any) -> socket.socket:
        """See `meshsdk.server.sniffing.SniffingContext.wrap_socket`."""
        entrance = entrance_at(_port(sock))
        if entrance is None:
            _tell_no_mesh()
            return sock
        return entrance.context().wrap_socket(sock, **options)


def on_starting(server: Any) -> None:
    """gunicorn's hook before its sockets are made: say that connections are to be wrapped."""
    _say_tls(server.cfg)


def on_reload(server: Any) -> None:
    """gunicorn's hook after its configuration was read anew."""
    _say_tls(server.cfg)


def ssl_context(config: Any, _default: Callable[[], ssl.SSLContext]) -> Any:
    """gunicorn's hook, called for each connection by its own threads and once by workers with an event loop."""
    return _Door() if _is_threaded(config) else None


def take_tls(config: Any) -> None:
    """Say in a configuration that is read to its end that connections are to be wrapped, and by what."""
    config.set("ssl_context", ssl_context)
    _say_tls(config)


def _say_tls(config: Any) -> None:
    """gunicorn wraps connections if a certificate's file is named; it is never read, as the hook makes the context."""
    if _is_threaded(config):
        config.set("certfile", __file__)
        config.set("do_handshake_on_connect", True)  # else threads want a handshake of every socket, in clear text too


def _is_threaded(config: Any) -> bool:
    name = str(config.worker_class_str).lower()
    return name in _THREADED or name.endswith(("syncworker", "threadworker"))


@cache  # once in each process
def _tell_no_mesh() -> None:
    log.error("gunicorn is to take the mesh's callers, and its application has no Mesh: clear text only")


def _port(sock: socket.socket) -> int:
    name = sock.getsockname()
    return int(name[1]) if isinstance(name, tuple) else 0

"""One wait of a thread for a socket."""

from __future__ import annotations

import select
import socket
from math import ceil, inf

__all__ = ["Late", "ready"]


class Late(Exception):
    """The bound of one wait is over."""


def ready(sock: socket.socket, events: int, seconds: float) -> int:
    """Wait for one of `events`, as `select.poll` has them, and say what happened; raises `Late`."""
    poller = select.poll()
    poller.register(sock.fileno(), events)
    for _, happened in poller.poll(None if seconds == inf else ceil(seconds * 1000)) if seconds > 0 else ():
        return happened
    raise Late

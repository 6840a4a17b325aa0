"""What systemd is told of a process that it runs as `Type=notify`: a datagram of lines (sd_notify(3))."""

from __future__ import annotations

import logging
import socket

from meshsdk.config import notify_socket

__all__ = ["MAINPID", "READY", "STOPPING", "tell"]

log = logging.getLogger("meshsdk.sidecar")

READY = "READY=1"
STOPPING = "STOPPING=1"
MAINPID = "MAINPID={}"
"""Another process of the unit is the one to watch from now on."""


def tell(*lines: str) -> bool:
    """Tell it; False where nobody wants to know, or it could not be told, which is logged and no reason to stop."""
    place = notify_socket()
    if not place:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setblocking(False)
        try:
            # A name that begins with @ is one of Linux's abstract ones, whose first byte is 0.
            sock.sendto("\n".join(lines).encode(), "\0" + place[1:] if place.startswith("@") else place)
        except OSError as error:
            log.warning("systemd was not told %s at %s: %s", " ".join(lines), place, error)
            return False
    return True

"""What a socket tells of its connection."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

__all__ = ["AddressInfo", "check_port", "left", "literal_address", "prompt", "quiet", "read_last", "unread_by_peer"]

# struct tcp_info of Linux (include/uapi/linux/tcp.h): tcpi_bytes_acked is the 64-bit number at byte 120, since 4.1.
# It counts the SYN as one.
_ACKED_AT: Final = 120
_LINUX: Final = sys.platform == "linux"

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]


def literal_address(address: str, port: int) -> AddressInfo | None:
    """What `getaddrinfo` would say of an address in digits, without a thread; None for a host name."""
    if "%" in address:
        return None  # a zone index is for the system to read
    for family, where in ((socket.AF_INET, (address, port)), (socket.AF_INET6, (address, port, 0, 0))):
        try:
            socket.inet_pton(family, address)
        except (OSError, UnicodeError):
            continue
        return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where
    return None


def prompt(sock: socket.socket | None) -> None:
    """Send small writes at once over TCP; asyncio does so itself only on sockets that name their protocol."""
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def quiet(sock: socket.socket) -> bool:
    """Whether nothing came on an idle connection, neither bytes nor its end."""
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLIN)
    return not poller.poll(0)


def left(sock: socket.socket) -> bool:
    """Whether the peer has closed, though nothing is read that would tell; False where the system cannot tell."""
    poller = select.poll()
    poller.register(sock.fileno(), getattr(select, "POLLRDHUP", 0))
    return bool(poller.poll(0))


def unread_by_peer(sock: socket.socket, sent_before: int) -> bool:
    """Whether a peer that closed did so before any byte came that we sent after the first `sent_before`.

    Every segment acknowledges what its sender has received by then, the FIN of a close too. So where the connection
    was closed by the peer (not reset), and what we sent last is not acknowledged, it arrived at a closed socket: no
    program has read it. After a reset nothing can be said, as an abort does not acknowledge what was read.
    False where the system cannot tell.
    """
    if not _LINUX:
        return False
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + 8)
    except OSError:
        return False
    if len(info) < _ACKED_AT + 8:
        return False
    acked: int = struct.unpack_from("Q", info, _ACKED_AT)[0]
    return acked <= sent_before + 1


def read_last(sock: socket.socket, into: Callable[[bytes], None]) -> None:
    """Read what came on a connection before it broke.

    Who answers before the end of what is sent to it, and closes, resets what we go on sending. A loop hears of that
    when it writes, and then reads no more: the answer would be lost.
    """
    with contextlib.suppress(OSError):
        while data := os.read(sock.fileno(), 256 * 1024):
            into(data)


def check_port(port: int) -> None:
    """Raises OSError for a number that is no port."""
    if not 0 < port < 65536:
        raise OSError(f"{port} is no port: ports are 1 to 65535")

"""Whether a connection comes from this process itself: then somebody had it opened by the data plane, to get past it.

The way out leads to hosts outside the mesh, this machine among them. What listens on loopback and trusts whoever gets
there would be reached through it, by any of the ways to write 127.0.0.1 and any name that leads there. The system knows
whose the other end is, whatever it was called.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator

__all__ = ["is_ours"]

_LOCAL, _INODE = 1, 9  # columns of proc(5), /proc/net/tcp
_MAPPED = b"\0" * 10 + b"\xff\xff"


def is_ours(peer: tuple[str, int], processes: Iterable[int] = ()) -> bool:
    """Whether the socket at an address of this machine belongs to us; False where the system does not say (not Linux).

    Args:
        peer: address and port of the other end of a connection that is open.
        processes: others that are us, such as workers.
    """
    inodes = set(_inodes(peer))
    if not inodes:
        return False
    wanted = {f"socket:[{inode}]" for inode in inodes}
    return any(not wanted.isdisjoint(_files(pid)) for pid in ("self", *map(str, processes)))


def _inodes(peer: tuple[str, int]) -> Iterator[str]:
    address, port = peer[0].partition("%")[0], peer[1]
    for name, raw in _spellings(address):
        local = f"{_hexadecimal(raw)}:{port:04X}"
        try:
            with open(f"/proc/net/{name}", encoding="ascii") as table:
                rows = [line.split() for line in table if local in line]
        except OSError:
            continue
        yield from (row[_INODE] for row in rows if row[_LOCAL] == local)


def _spellings(address: str) -> list[tuple[str, bytes]]:
    """The tables an address may stand in; a socket of IPv6 may have one of IPv4."""
    if ":" not in address:
        raw = socket.inet_pton(socket.AF_INET, address)
        return [("tcp", raw), ("tcp6", _MAPPED + raw)]
    raw = socket.inet_pton(socket.AF_INET6, address)
    return [("tcp6", raw), *([("tcp", raw[12:])] if raw.startswith(_MAPPED) else [])]


def _hexadecimal(raw: bytes) -> str:
    """As the tables write it: four bytes at a time, in the machine's own order."""
    words = struct.unpack(f"={len(raw) // 4}I", raw)
    return "".join(f"{word:08X}" for word in words)


def _files(pid: str) -> set[str]:
    found: set[str] = set()
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return found
    for name in names:
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:  # closed meanwhile
            continue
    return found

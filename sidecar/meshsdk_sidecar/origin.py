"""Whether a connection comes from this process itself: then somebody had it opened by the data plane, to get past it.

The way out leads to hosts outside the mesh, this machine among them. What listens on loopback and trusts whoever gets
there would be reached through it, by any of the ways to write 127.0.0.1 and any name that leads there. The system knows
whose the other end is, whatever it was called.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable

__all__ = ["is_ours"]

_LOCAL, _REMOTE, _INODE = 1, 2, 9  # columns of proc(5), /proc/net/tcp
_MAPPED = b"\0" * 10 + b"\xff\xff"


def is_ours(peer: tuple[str, int], here: tuple[str, int], processes: Iterable[int] = ()) -> bool:
    """Whether the other end of a connection belongs to us; False where the system does not say (not Linux).

    One that is closed already may have: what was sent on it can still be read, and it is taken for ours, as an honest
    client that has gone misses nothing.

    Args:
        peer: address and port of the other end, on this machine.
        here: those of our end.
        processes: others that are us, such as workers.
    """
    # Before the table is read: what is open then was open here, while the other way round it might be closed between.
    files = {file for pid in ("self", *map(str, processes)) for file in _files(pid)}
    inodes = _inodes(peer, here)
    if inodes is None:
        return False
    held = {f"socket:[{inode}]" for inode in inodes if inode != "0"}  # 0 is nobody's any more
    return not held or not held.isdisjoint(files)


def _inodes(peer: tuple[str, int], here: tuple[str, int]) -> list[str] | None:
    """Of the other end, as each table has it; None where there is no table."""
    found: list[str] | None = None
    for (name, local), (_, remote) in zip(_spellings(peer), _spellings(here), strict=True):
        try:
            with open(f"/proc/net/{name}", encoding="ascii") as table:
                rows = [line.split() for line in table if local in line]
        except OSError:
            continue
        found = (found or []) + [row[_INODE] for row in rows if (row[_LOCAL], row[_REMOTE]) == (local, remote)]
    return found


def _spellings(where: tuple[str, int]) -> list[tuple[str, str]]:
    """The tables an address may stand in, and how; a socket of IPv6 may have one of IPv4."""
    address, port = where[0].partition("%")[0], where[1]
    if ":" not in address:
        raw = socket.inet_pton(socket.AF_INET, address)
        found = [("tcp", raw), ("tcp6", _MAPPED + raw)]
    else:
        raw = socket.inet_pton(socket.AF_INET6, address)
        found = [("tcp6", raw), *([("tcp", raw[12:])] if raw.startswith(_MAPPED) else [])]
    return [(name, f"{_hexadecimal(raw)}:{port:04X}") for name, raw in found]


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

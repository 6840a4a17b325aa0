"""An identity in PEM files that somebody else renews, such as a job of cert-manager's, Vault's agent or a person.

Rule 1  The files are looked at every second, by time of change, inode and size: links that are switched count too.
Rule 2  They are read together, and used only if none changed meanwhile and all belong together. A set that is half
        written is refused in words and looked at again; what was in force stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from meshsdk.identity.events import Trouble
from meshsdk.identity.material import BadMaterial, Material
from meshsdk.identity.providers.provider import Publish

__all__ = ["FileProvider"]

PERIOD = 1.0
"""Seconds between two looks, three system calls each."""

MAX_BYTES = 1024 * 1024
"""Of one file: a set of roots has some kilobytes, and anything much larger is another file."""

_Stamp = tuple[tuple[int, int, int], ...]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class FileProvider:
    """Follows three PEM files.

    Args:
        cert: our certificate, and those between it and a root.
        key: its private key; may be the same file.
        ca: the roots to trust.
        now: the wall clock, with a time zone.
        sleep: takes seconds.
    """

    def __init__(
        self,
        cert: Path,
        key: Path,
        ca: Path,
        *,
        now: Callable[[], datetime] = _utc_now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._paths = cert, key, ca
        self._now = now
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"<FileProvider {', '.join(map(str, self._paths))}>"

    async def run(self, publish: Publish) -> None:
        """Publish the set and each other one, until cancelled."""
        used: _Stamp | None = None
        told = ""
        while True:
            words = ""
            try:
                if (stamp := self._stamp()) != used:
                    publish(self._read(stamp))
                    used = stamp
            except (BadMaterial, OSError) as error:
                used, words = None, self._words(error)
                if words != told:
                    publish(Trouble("refused", words))
            told = words
            await self._sleep(PERIOD)

    def _stamp(self) -> _Stamp:
        stats = [path.stat() for path in self._paths]
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)

    def _read(self, stamp: _Stamp) -> Material:
        for path, (_, _, size) in zip(self._paths, stamp, strict=True):
            if size > MAX_BYTES:
                raise BadMaterial(f"{path} has {size} bytes, at most {MAX_BYTES} are read")
        cert, key, ca = (path.read_bytes().decode(errors="replace") for path in self._paths)
        if self._stamp() != stamp:
            raise BadMaterial("they change while they are read")
        return Material.of_pem(cert, key, ca, now=self._now())

    def _words(self, error: BadMaterial | OSError) -> str:
        if isinstance(error, OSError):
            return f"{error.filename} cannot be read: {error.strerror or error}"
        cert, key, ca = self._paths
        return f"files {cert} (certificate), {key} (key) and {ca} (roots): {error}"

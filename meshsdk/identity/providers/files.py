"""An identity in PEM files that somebody else renews, such as a job of cert-manager's, Vault's agent or a person.

Rule 1  The files are looked at every second, by time of change, inode and size: links that are switched count too.
Rule 2  They are read together, and used only if none changed meanwhile and all belong together. A set that is half
        written is refused in words and looked at again; what was in force stays.
Rule 3  A set that was refused and stays as it is, is examined again all the same, as clocks are put right and dates
        come; not at every look, as an examination may take a process of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from meshsdk.identity.events import Trouble
from meshsdk.identity.material import BadMaterial, Material
from meshsdk.identity.providers.provider import Examine, Publish, examine_here

__all__ = ["FileProvider"]

PERIOD = 1.0
"""Seconds between two looks, three system calls each."""

RETRY = timedelta(seconds=5)
"""Between two examinations of a set that is refused."""

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
        examine: makes material of what is in them.
        now: the wall clock, with a time zone.
        sleep: takes seconds.
    """

    def __init__(
        self,
        cert: Path,
        key: Path,
        ca: Path,
        *,
        examine: Examine = examine_here,
        now: Callable[[], datetime] = _utc_now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._paths = cert, key, ca
        self._examine = examine
        self._now = now
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"<FileProvider {', '.join(map(str, self._paths))}>"

    async def run(self, publish: Publish) -> None:
        """Publish the set and each other one, until cancelled."""
        seen: _Stamp | None = None
        refused: datetime | None = None
        told = ""
        while True:
            try:
                if (stamp := self._stamp()) != seen or self._again(refused):
                    seen, refused = stamp, self._now()
                    publish(await self._read(stamp))
                    refused, told = None, ""
            except (BadMaterial, OSError) as error:
                if isinstance(error, OSError):
                    seen = None
                if (words := self._words(error)) != told:
                    told = words
                    publish(Trouble("refused", words))
            await self._sleep(PERIOD)

    def _again(self, refused: datetime | None) -> bool:
        """Rule 3; a clock that was set back is a reason too."""
        return refused is not None and not timedelta() <= self._now() - refused < RETRY

    def _stamp(self) -> _Stamp:
        stats = [path.stat() for path in self._paths]
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)

    async def _read(self, stamp: _Stamp) -> Material:
        for path, (_, _, size) in zip(self._paths, stamp, strict=True):
            if size > MAX_BYTES:
                raise BadMaterial(f"{path} has {size} bytes, at most {MAX_BYTES} are read")
        cert, key, ca = (path.read_bytes().decode(errors="replace") for path in self._paths)
        if self._stamp() != stamp:
            raise BadMaterial("they change while they are read")
        return await self._examine(cert, key, ca, now=self._now())

    def _words(self, error: BadMaterial | OSError) -> str:
        if isinstance(error, OSError):
            return f"{error.filename} cannot be read: {error.strerror or error}"
        cert, key, ca = self._paths
        return f"files {cert} (certificate), {key} (key) and {ca} (roots): {error}"

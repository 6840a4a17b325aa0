"""Whether the app is well: looked at again and again, judged by how many looks in a row went well or did not.

Rule 1  The first look counts at once; after that it takes `unhealthy` or `healthy` looks in a row to turn the verdict.
Rule 2  An app that is not well is looked at at least twice a second: it is starting, and callers wait for it. Each
        pause is up to a tenth shorter or longer, so that many sidecars do not look in step.
Rule 3  What is found is said in words an operator understands without the app's log: they are the output of the check
        in Consul.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from meshsdk_sidecar.config import HealthCheck
from meshsdk_sidecar.place import Place

__all__ = ["AppHealth", "Verdict", "accepts", "look"]

log = logging.getLogger("meshsdk.sidecar")

IMPATIENT = 0.5
"""Seconds between two looks at an app that is not well."""

_LINE = 200
_READ = 4096


class Verdict:
    """Rule 1: looks to a verdict, by thresholds.

    Attributes:
        well: None before the first look.
        why: what the last look that went wrong found; empty while well.
    """

    def __init__(self, unhealthy: int, healthy: int) -> None:
        self.well: bool | None = None
        self.why = ""
        self._needed = {False: unhealthy, True: healthy}
        self._row = 0

    def note(self, trouble: str) -> bool:
        """Take in what a look found, nothing if all was well; say whether the verdict turned."""
        well = not trouble
        if well is self.well:
            self._row = 0
            self.why = trouble
            return False
        self._row += 1
        if self.well is not None and self._row < self._needed[well]:
            return False
        self.well, self.why, self._row = well, trouble, 0
        return True


class AppHealth:
    """Looks at one app while `run` runs.

    Args:
        place: where the app listens.
        check: how to look.
        turned: told each time the verdict turns; it must not raise or block.
        look: finds what is wrong, nothing if all is well.
        sleep: waits so many seconds.
        rng: chance, for rule 2.
    """

    def __init__(
        self,
        place: Place,
        check: HealthCheck,
        *,
        turned: Callable[[], None] = lambda: None,
        looked: Callable[[Place, HealthCheck], Awaitable[str]] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._place = place
        self._check = check
        self._verdict = Verdict(check.unhealthy, check.healthy)
        self._turned = turned
        self._look = looked or look
        self._sleep = sleep
        self._rng = rng or random.Random()
        if not check.looks:
            self._verdict.note("")

    def __repr__(self) -> str:
        return f"<AppHealth {self._place} {self.trouble or 'well'}>"

    @property
    def looked(self) -> bool:
        """Whether it is known how the app does."""
        return self._verdict.well is not None

    @property
    def trouble(self) -> str:
        """Why callers must not be sent to the app; empty while it is well."""
        if self._verdict.well is None:
            return f"the app at {self._place} has not been looked at yet"
        return self._verdict.why if not self._verdict.well else ""

    async def run(self) -> None:
        """Look until cancelled."""
        while self._check.looks:
            first = self._verdict.well is None
            if self._verdict.note(await self._look(self._place, self._check)):
                self._tell(first=first)
                self._turned()
            pause = self._check.interval if self._verdict.well else min(self._check.interval, IMPATIENT)
            await self._sleep(pause * self._rng.uniform(0.9, 1.1))

    def _tell(self, *, first: bool) -> None:
        if self._verdict.well:
            log.info("the app at %s is well", self._place)
        elif first:
            log.info("waiting for the app: %s", self._verdict.why)
        else:
            log.warning("the app is not well, callers are sent elsewhere: %s", self._verdict.why)


async def accepts(place: Place, seconds: float = 1.0) -> bool:
    """Whether somebody accepts connections at a place."""
    return not await _bounded(_connects(place), place, seconds)


async def look(place: Place, check: HealthCheck) -> str:
    """Look once, as `check` says; return what is wrong, nothing if all is well. Raises nothing of the network's."""
    if check.http is None:
        return await _bounded(_connects(place), place, check.timeout)
    where = place if check.port is None else Place(place.address or "127.0.0.1", check.port)
    return await _bounded(_answers(where, check.http), where, check.timeout)


async def _bounded(work: Awaitable[str], place: Place, seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        return f"{place} does not answer within {seconds:g} s"
    except OSError as error:
        silent = error.errno in {errno.ECONNREFUSED, errno.ENOENT}
        return f"nothing listens at {place}" if silent else f"{place}: {error.strerror or error}"


async def _connects(place: Place) -> str:
    _, writer = await _open(place)
    writer.close()
    return ""


async def _answers(place: Place, page: str) -> str:
    reader, writer = await _open(place)
    try:
        host = "localhost" if place.socket else str(place)
        writer.write(
            f"GET {page} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: meshsdk-health\r\nConnection: close\r\n\r\n".encode()
        )
        text = b""
        while b"\n" not in text and len(text) < _READ and (more := await reader.read(_READ)):
            text += more  # some write a status line in pieces
        return _read(page, place, text)
    finally:
        writer.close()


async def _open(place: Place) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if place.socket:
        return await asyncio.open_unix_connection(place.socket, limit=_READ)
    return await asyncio.open_connection(place.address, place.port, limit=_READ)


def _read(page: str, place: Place, text: bytes) -> str:
    """What an answer says: any 2xx or 3xx is well, as container platforms have it."""
    line = text.partition(b"\r\n")[0].decode("latin-1")[:_LINE]
    version, _, rest = line.partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not re.fullmatch("[0-9]{3}", status):
        return f"GET {page} at {place} is answered with {line!r}, which is not HTTP" if line else _nothing(page, place)
    if 200 <= int(status) < 400:
        return ""
    body = text.partition(b"\r\n\r\n")[2].decode("utf-8", "replace").strip().partition("\n")[0][:_LINE]
    return f"GET {page} at {place} is answered with {_named(int(status))}" + (
        f": {body}" if body.isprintable() and body else ""
    )


def _nothing(page: str, place: Place) -> str:
    return f"GET {page} at {place}: the connection was closed without an answer"


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)

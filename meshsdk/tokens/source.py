"""Where an issuer's keys are read: a file or a URL, followed on the background loop.

Rule 1  What was read last stays in force while nothing good can be read, for as long as it takes.
Rule 2  A URL is asked again every five minutes, and sooner when a token names an unknown key: at most every five
        seconds, so that whoever makes up keys does not make us ask. After a failure, in 1 s, 2 s, … up to a minute.
Rule 3  A file is looked at every second, by time of change, inode and size.
Rule 4  Each trouble is logged once, and its end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from meshsdk.tokens.keys import MAX_BYTES, BadKeys, KeySet, read_keys

if TYPE_CHECKING:
    import httpx

__all__ = ["KeySource"]

_log = logging.getLogger("meshsdk.tokens")

FILE_PERIOD = 1.0
URL_PERIOD = 300.0
URL_GAP = 5.0
URL_TIMEOUT = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0

_Stamp = tuple[int, int, int]

INSTALL = "authentication.jwt needs PyJWT; run: pip install 'meshsdk[jwt]'"


class KeySource:
    """Follows one location.

    Args:
        location: a file's absolute path, or a URL.
        publish: takes each key set that could be read, and None after each try that failed.
        rng: chance, for pauses that many processes shall not take at the same moment.
        period, gap: seconds between two looks at a URL, and the fewest between two that unknown keys cause.
        file_period: seconds between two looks at a file.
        timeout: seconds a URL has to answer in.
    """

    def __init__(
        self,
        location: str,
        publish: Callable[[KeySet | None], object],
        *,
        rng: random.Random,
        period: float = URL_PERIOD,
        gap: float = URL_GAP,
        file_period: float = FILE_PERIOD,
        timeout: float = URL_TIMEOUT,
    ) -> None:
        self.location = location
        self._publish = publish
        self._rng = rng
        self._period = period
        self._gap = gap
        self._file_period = file_period
        self._timeout = timeout
        self._asked = asyncio.Event()
        self._trouble = ""

    def ask(self) -> None:
        """Look again soon; on the loop that runs it."""
        self._asked.set()

    async def run(self) -> None:
        """Read and publish until cancelled."""
        await (self._follow_file(Path(self.location)) if self.location.startswith("/") else self._follow_url())

    # --- a file -----------------------------------------------------------------------------------------

    async def _follow_file(self, path: Path) -> None:
        used: _Stamp | None = None
        while True:
            try:
                if (stamp := _stamp(path)) != used:
                    self._take(_content(path))
                    used = stamp
            except (BadKeys, OSError, ImportError) as error:
                used = None
                self._failed(error)
            await asyncio.sleep(self._file_period)

    # --- a URL ------------------------------------------------------------------------------------------

    async def _follow_url(self) -> None:
        import httpx  # 8 MB, which a process whose policy asks for no tokens does without

        pause = _FIRST_PAUSE
        # No redirects: whom the policy names is asked. Trusted is whom this machine trusts, private roots included.
        tls = ssl.create_default_context()
        async with httpx.AsyncClient(timeout=self._timeout, verify=tls, trust_env=False) as http:
            while True:
                self._asked.clear()
                try:
                    async with asyncio.timeout(self._timeout):  # a slow drip of bytes would pass httpx's own
                        self._take(await _fetched(http, self.location))
                    pause, wait = _FIRST_PAUSE, self._period * self._rng.uniform(0.9, 1.0)
                except (BadKeys, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as error:
                    self._failed(error)
                    wait = min(pause, self._period) * self._rng.uniform(0.5, 1.0)
                    pause = min(pause * 2, _LONGEST_PAUSE)
                await self._until_due(wait)

    async def _until_due(self, wait: float) -> None:
        first = min(self._gap, wait)
        await asyncio.sleep(first)
        try:
            async with asyncio.timeout(wait - first):
                await self._asked.wait()
        except TimeoutError:
            return

    # --- both -------------------------------------------------------------------------------------------

    def _take(self, text: bytes) -> None:
        keys = read_keys(text)
        if self._trouble:
            _log.info("the keys at %s can be read again", self.location)
        self._trouble = ""
        for why in keys.left_out:
            _log.debug("of the keys at %s: %s", self.location, why)
        self._publish(keys)

    def _failed(self, error: Exception) -> None:
        words = _words(error)
        if words != self._trouble:
            _log.warning("the keys at %s cannot be used, those read last stay in force: %s", self.location, words)
        self._trouble = words
        self._publish(None)


def _stamp(path: Path) -> _Stamp:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _content(path: Path) -> bytes:
    with open(path, "rb", opener=_opened) as file:
        return file.read(MAX_BYTES + 1) or b""  # None where a pipe is empty


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe of that name must not hold up the loop


async def _fetched(http: httpx.AsyncClient, url: str) -> bytes:
    text = b""
    async with http.stream("GET", url, headers={"accept": "application/json"}) as answer:
        if answer.status_code != 200:
            raise BadKeys(f"the answer's status is {answer.status_code}")
        async for piece in answer.aiter_bytes():
            text += piece
            if len(text) > MAX_BYTES:
                break
    return text


def _words(error: Exception) -> str:
    if isinstance(error, ImportError):
        return INSTALL
    if isinstance(error, TimeoutError):
        return "no whole answer came in time"
    return str(error) or type(error).__name__

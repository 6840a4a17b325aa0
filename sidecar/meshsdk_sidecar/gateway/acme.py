"""The answers to those who look whether a host is ours before they certify it (ACME, RFC 8555, 8.3).

Whoever renews the certificates writes them as files; only the names that tokens may have are read, in one folder.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

__all__ = ["Challenges"]

log = logging.getLogger("meshsdk.gateway")

# RFC 8555, 8.3: characters of base64url.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")

_MOST = 4096  # a key authorization has about 90 bytes


class Challenges:
    """A folder of answers.

    Attributes:
        PREFIX: below which they are asked for.
    """

    PREFIX = "/.well-known/acme-challenge/"

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def answer(self, method: bytes, path: str) -> tuple[int, bytes]:
        """Status and body."""
        token = path.removeprefix(self.PREFIX)
        if method not in {b"GET", b"HEAD"} or not _TOKEN.fullmatch(token):
            return 404, b"no such challenge\n"
        try:
            with (self._folder / token).open("rb") as file:
                return 200, file.read(_MOST)
        except OSError as error:
            log.info("no answer to the challenge %s: %s", token, error.strerror or error)
            return 404, b"no such challenge\n"

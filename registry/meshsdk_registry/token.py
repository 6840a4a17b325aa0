"""The ACL token, looked up anew for every request: from a text, a callable, or a file that may be rotated."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from meshsdk_registry.errors import Denied

__all__ = ["Token", "TokenFile", "token_source"]

Token = str | Callable[[], str | None] | None


def token_source(token: Token, token_file: str | os.PathLike[str] | None) -> Callable[[], str | None]:
    """Return what gives the token of the moment. An explicit `token` and a file exclude each other (ValueError)."""
    if token is not None and token_file is not None:
        raise ValueError("both a token and a token file are given: leave one out")
    if token_file is not None:
        return TokenFile(token_file)
    return token if callable(token) else lambda: token


class TokenFile:
    """Reads a token from a file and again when the file changes.

    A file that vanishes after it was read once keeps its last token: rotation by delete-and-write has such a moment.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    def __call__(self) -> str:
        """Return the token; raise `Denied` where the file was never readable or is empty."""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                self._token = self._path.read_text("utf-8").strip() or self._token
                self._seen = seen
        except (OSError, UnicodeDecodeError) as error:
            if not self._token:
                raise Denied(
                    f"the token file {self._path} cannot be read ({error}): write the ACL token into it"
                ) from error
        if not self._token:
            raise Denied(f"the token file {self._path} is empty: write the ACL token into it")
        return self._token

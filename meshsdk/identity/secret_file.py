"""A file for what only a path can be given for and no disk may keep: OpenSSL takes private keys from files alone.

On Linux the file is memory behind a descriptor (memfd_create), gone when it is closed. Where there is none, or no
/proc to name it by, it is an ordinary file that only its owner may read, removed at once after use.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["secret_file"]


@contextlib.contextmanager
def secret_file(content: str) -> Iterator[str]:
    """The path of a file with `content`, for as long as the block lasts.

    Raises:
        OSError: no file can be made: no descriptor or no space is left.
    """
    descriptor = _memory()
    if descriptor is None:
        with _on_disk(content) as path:
            yield path
        return
    try:
        _write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _memory() -> int | None:
    """A descriptor of memory that can be named by a path, None where the platform has none."""
    create = getattr(os, "memfd_create", None)
    if create is None:
        return None
    try:
        descriptor: int = create("meshsdk", os.MFD_CLOEXEC)
    except OSError:  # a sandbox may forbid it; where descriptors are used up, the file on disk fails too and tells it
        return None
    if not Path(f"/proc/self/fd/{descriptor}").exists():
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def _on_disk(content: str) -> Iterator[str]:
    import tempfile  # which has more to it than the rest of this module's imports, and is seldom needed

    descriptor, path = tempfile.mkstemp(prefix="meshsdk-")  # made with mode 0600
    try:
        try:
            _write(descriptor, content)
        finally:
            os.close(descriptor)
        yield path
    finally:
        os.unlink(path)


def _write(descriptor: int, content: str) -> None:
    left = memoryview(content.encode())
    while left:
        left = left[os.write(descriptor, left) :]

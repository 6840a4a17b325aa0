"""The last known good of each service on disk, for a start without Consul: one file each, replaced whole. What a served
process remembers of its own policy and intentions stands beside them, in `<service>.own` and `<service>.intentions`.

Rule 1: only files that nobody else could have written are believed: they say where calls go. The folder and the files
        are the user's own, writable by nobody else, and no folder above belongs to another user (root's do no harm).
Rule 2: a file is written beside, flushed to the disk and renamed: whatever breaks leaves the old one or the new one.
Rule 3: what cannot be read or written is said once and costs nothing else: Consul is the truth, this is a memory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from meshsdk.discovery.memory import Memory, dump, read

__all__ = ["Disk", "problem_with"]

_log = logging.getLogger("meshsdk.discovery")

MAX_BYTES = 16 << 20
"""About 60,000 endpoints; a larger file is not one of ours."""


def problem_with(folder: Path) -> str:
    """Say why `folder` cannot hold what is remembered; empty where it can. Creates it if it is not there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if wrong := _not_ours(folder.stat(), f"{folder}"):
            return wrong
        for above in folder.resolve().parents:
            if wrong := _unsafe_above(above):
                return wrong
        descriptor, beside = _beside(folder, "problem")
        os.close(descriptor)
        os.unlink(beside)
        return ""
    except OSError as error:
        return f"{folder}: {error.strerror or error}"


class Disk:
    """The folder, as one process with one Consul sees it.

    Args:
        folder: created on first use; None remembers nothing.
        origin: which Consul the answers are from.
        wall: seconds since 1970; file times are compared with it.
    """

    def __init__(self, folder: Path | None, origin: str, wall: Callable[[], float] = time.time) -> None:  # noqa: TID251  # ages across processes have no other clock
        self.problem = problem_with(folder) if folder is not None else ""
        self._folder = folder if not self.problem else None
        self._origin = origin
        self._wall = wall
        self._written: dict[str, bytes] = {}
        if self.problem:
            _log.warning("nothing is remembered on disk, a start without Consul will know nothing: %s", self.problem)

    def load(self, service: str) -> Memory | None:
        """Return what an earlier process knew; None where there is nothing to be believed."""
        if self._folder is None:
            return None
        path = self._path(self._folder, service)
        try:
            text, written_at = _content(path)
            return read(text, service, self._origin, max(0.0, self._wall() - written_at))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("%s is not used: %s; the next answer of Consul replaces it", path, error)
            return None

    def save(self, service: str, memory: Memory) -> None:
        """Keep `memory` for the next process. If that is what was kept last, only its age is renewed."""
        if self._folder is None:
            return
        path, content = self._path(self._folder, service), dump(service, self._origin, memory)
        try:
            if self._written.get(service) == content and path.exists():
                os.utime(path)
            else:
                _replace(path, content)
                self._written[service] = content
            self.problem = ""
        except OSError as error:
            problem = f"{self._folder}: {error.strerror or error}"
            if problem != self.problem:
                _log.warning("%s is not remembered on disk: %s", service, problem)
            self.problem = problem

    def _path(self, folder: Path, service: str) -> Path:
        return folder / f"{service}.json"  # a DNS label, and for our own a dot and a word: no slashes


def _content(path: Path) -> tuple[bytes, float]:
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("it is not an ordinary file")
        if wrong := _not_ours(facts, "it"):
            raise ValueError(wrong)
        if facts.st_size > MAX_BYTES:
            raise ValueError(f"it has {facts.st_size} bytes, more than {MAX_BYTES}")
        return file.read(MAX_BYTES), facts.st_mtime


def _replace(path: Path, content: bytes) -> None:
    descriptor, beside = _beside(path.parent, path.stem)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    _flush_folder(path.parent)


def _beside(folder: Path, stem: str) -> tuple[int, Path]:
    """Create a file that nobody else has, 0600 from its first moment. (`tempfile` loads 0.6 MB into every sidecar.)"""
    path = folder / f".{stem}.{os.urandom(8).hex()}"
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600), path


def _flush_folder(folder: Path) -> None:
    """Make the rename last; systems that cannot open a folder do without."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_ours(facts: os.stat_result, name: str) -> str:
    if os.name != "posix":
        return ""
    if facts.st_uid != os.getuid():
        return f"{name} belongs to user {facts.st_uid}, not to {os.getuid()}: where calls go could be another's choice"
    if facts.st_mode & 0o022:
        mode = stat.S_IMODE(facts.st_mode)
        return f"{name} is writable by others (mode {mode:04o}): take that away with chmod go-w"
    return ""


def _unsafe_above(folder: Path) -> str:
    """Whoever owns a folder above, or may rename in it, can put another in the place of ours. /tmp is sticky."""
    facts = folder.stat()
    if os.name != "posix":
        return ""
    if facts.st_uid not in {0, os.getuid()}:
        return f"{folder}, above it, belongs to user {facts.st_uid}"
    if facts.st_mode & 0o002 and not facts.st_mode & stat.S_ISVTX:
        return f"{folder}, above it, is writable by everybody"
    return ""

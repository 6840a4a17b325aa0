"""The processes that share one port are one instance: they meet at unix sockets in a folder of their own.

Rule 1: each process listens at `<runtime dir>/<instance>/<pid>.sock` and answers questions: a word, a line's end and,
for some, a text after it.
Rule 2: who wants to leave says so first and asks the others afterwards. So of several that leave at the same time at
least one, the last to say so, sees nobody left and takes the instance out of Consul.
Rule 3: a socket that refuses belongs to a process that is gone, and is removed. One that is silent while its process
lives counts as serving: taking an instance out by mistake is worse than leaving it to its TTL.
Rule 4: without such a folder a process is alone, and the log says why.
Rule 5: what nobody is there to be told (a single worker is recycled, or all of them at once) waits in the folder for
the next one to look.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["SERVING", "Alone", "Workers", "folder"]

log = logging.getLogger("meshsdk.server")

SERVING = "serving"
_STARTING = "starting"  # the phase of that name
_INHERIT = "inherit"  # the one question that may be answered later

# The kernel's sun_path: 108 bytes with its final zero on Linux, 104 on the BSDs and macOS.
_LONGEST = 103
# A question to a process on the same machine, asked between a signal and the answer to it.
_WAIT = 0.25


class Workers:
    """This process among those that share its port.

    Args:
        base: the folder where workers meet; None means this process is alone.
        instance: the id they share.
        answers: what is said to each question, given the text that came with it.
    """

    def __init__(self, base: Path | None, instance: str, answers: Mapping[str, Callable[[str], str]]) -> None:
        self._base = base
        self._instance = instance
        self._answers = answers
        self._folder: Path | None = None
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Begin to answer the others."""
        try:
            self._folder = folder(self._base, self._instance)
            self._socket = _listen(self._folder)
            self._server = await asyncio.start_unix_server(self._answer, sock=self._socket)
            self._take_over()
        except (OSError, Alone) as error:
            self._folder = None
            log.warning(
                "workers that share the port of %s cannot find each other: %s; each one registers, deregisters and "
                "shows metrics for itself (set MESH_RUNTIME_DIR to a short path that this user owns)",
                self._instance,
                error,
            )

    async def ask(self, question: str) -> list[str]:
        """The answers of all other workers; one that is silent while its process lives answers with an empty text."""
        self._take_over()
        answers = await asyncio.gather(*(_ask(path, question, "") for path in self._others()))
        return [answer for answer in answers if answer is not None]

    async def tell_one(self, question: str, text: str) -> None:
        """Give a text to one other worker, best to one that serves; the next one to come, where there is none."""
        for wanted in (SERVING, _STARTING):
            for path in self._others():
                if await _ask(path, "state", "") == wanted and await _ask(path, question, text):
                    return
        if self._folder is not None:
            _leave(self._folder, question, text)

    @property
    def alone(self) -> bool:
        """Whether there is surely no other; False where workers cannot find each other."""
        return self._folder is not None and not self._others()

    async def any_serving(self) -> bool:
        """Whether another worker serves (rule 3)."""
        return any(answer in {SERVING, ""} for answer in await self.ask("state"))

    def _take_over(self) -> None:
        for question, text in _left(self._folder) if self._folder else ():
            self._answers[question](text)

    def _others(self) -> list[Path]:
        return [] if self._folder is None else [p for p in self._folder.glob("*.sock") if p.stem != str(os.getpid())]

    async def close(self) -> None:
        """Stop answering; the others see this process as gone."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._folder is not None:
            (self._folder / f"{os.getpid()}.sock").unlink(missing_ok=True)
            self._folder = None

    def forget(self) -> None:
        """In a forked child: let go of the parent's socket, which would otherwise outlive the parent."""
        self._server = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_WAIT):
                question, _, text = (await reader.read(-1)).decode("utf-8", "replace").partition("\n")
                say = self._answers.get(question)
                writer.write((say(text) if say else f"unknown question {question!r}").encode())
                await writer.drain()
        except (OSError, TimeoutError) as error:
            log.debug("a worker of %s hung up on us: %s", self._instance, error)
        except asyncio.CancelledError:
            # The loop ends with the process; passed on, the streams of Python 3.11 print a stack for it.
            log.debug("ending amid a question about %s", self._instance)
        finally:
            writer.close()


class Alone(Exception):
    """Why this process cannot meet the others."""


def folder(base: Path | None, instance: str) -> Path:
    """The folder where processes of one instance meet; made where it is not there.

    Raises:
        Alone: there can be none.
    """
    if base is None:
        raise Alone("no runtime folder is set")
    if not hasattr(socket, "AF_UNIX"):
        raise Alone("this system has no unix sockets")
    meeting = base / instance
    if _too_long(meeting):
        import hashlib  # 0.6 MB for a seldom need

        meeting = base / hashlib.sha256(instance.encode()).hexdigest()[:12]
    if _too_long(meeting):
        raise Alone(f"{base} is too long for a unix socket")
    meeting.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = meeting.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Alone(
            f"{meeting} must belong to this user alone (owner {found.st_uid}, mode {stat.filemode(found.st_mode)})"
        )
    return meeting


def _too_long(folder: Path) -> bool:
    return len(os.fsencode(folder / ".4194304.new")) > _LONGEST


def _listen(folder: Path) -> socket.socket:
    """Listen under another name first: a bound socket that does not listen yet refuses, and would be taken for dead."""
    path, new = folder / f"{os.getpid()}.sock", folder / f".{os.getpid()}.new"
    new.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(new))
        listener.listen(64)
        listener.setblocking(False)
        new.rename(path)
    except OSError:
        listener.close()
        raise
    return listener


def _leave(folder: Path, question: str, text: str) -> None:
    new = folder / f".{os.getpid()}.leaving"
    new.write_text(text)
    new.rename(folder / f"{os.getpid()}.{question}")


def _left(folder: Path) -> list[tuple[str, str]]:
    """Take what was left: renaming decides which of several that begin at once has it."""
    found = []
    for path in folder.glob(f"[0-9]*.{_INHERIT}"):
        mine = folder / f".{os.getpid()}.taking"
        try:
            path.rename(mine)
        except FileNotFoundError:
            continue
        found.append((path.suffix.removeprefix("."), mine.read_text()))
        mine.unlink()
    return found


async def _ask(path: Path, question: str, text: str) -> str | None:
    try:
        async with asyncio.timeout(_WAIT):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(f"{question}\n{text}".encode())
                writer.write_eof()
                return (await reader.read(-1)).decode()
            finally:
                writer.close()
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)  # noqa: ASYNC240 (a local folder in memory)
        return None
    except (OSError, TimeoutError):
        return "" if _lives(path.stem) else None


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True

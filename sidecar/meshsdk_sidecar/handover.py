"""Hot restart: a new process takes the listening sockets of the one before, becomes ready, and tells it to go.

Rule 1  A running sidecar or gateway listens at `<runtime dir>/<instance>/handover.sock`, its owner's alone. The
        instance is the service, this machine, and the inbound port, as in Consul; the outbound one, where a sidecar
        only calls, and that of https for a gateway.
Rule 2  Sockets are shared, not moved: what waits to be accepted belongs to the socket, so whoever accepts last serves
        it. The one before goes on accepting until the new one is ready; nobody is refused in between.
Rule 3  A new process that ends, or is not ready within `READY` seconds, has changed nothing: the one before serves on.
Rule 4  One new process at a time; others are told to wait.
Rule 5  Each message is its length in four bytes and JSON. Descriptors follow apart, a byte for each parcel, so that no
        read of something else swallows them (unix(7): they come with the bytes they were sent with, or are lost).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from meshsdk.config import Settings
from meshsdk.errors import MeshError
from meshsdk.server.address import instance_id
from meshsdk.server.workers import folder
from meshsdk_sidecar import sockets

__all__ = ["READY", "Handover", "NotReplaced", "Predecessor", "meeting_place"]

log = logging.getLogger("meshsdk.sidecar")

READY = 30.0
"""Seconds a new process has to become ready: a certificate takes one or two, a crowded machine some more."""

_ANSWER = 5.0  # seconds in which a process answers what needs no waiting for others
_PAUSE = 1.0  # seconds until a process without descriptors listens again
_VERSION = 1
_LENGTH = struct.Struct(">I")
_LONGEST = 1 << 20  # bytes of a message; a name and a number for each of the file's listeners
_PARCEL = 64  # descriptors at once; Linux takes 253 (SCM_MAX_FD)


class NotReplaced(MeshError):
    """The process before goes on serving; says why."""


def meeting_place(settings: Settings, port: int) -> Path:
    """Where a running process and the one that is to replace it meet.

    Args:
        port: which of the file's its instance is known by.

    Raises:
        Alone: there is no such place; says why.
    """
    return folder(settings.runtime_dir, instance_id(settings.service, port)) / "handover.sock"


class Handover:
    """The running process's side.

    Args:
        place: where it listens.
        listening: what is handed over.
        refusal: why nothing is handed over now; empty where it is.
        replaced: stops accepting and leaves Consul to the new process, whose number it is given; what is in flight is
            finished afterwards.

    Attributes:
        under_way: whether another process holds what is handed over, and has not given up; it stays so when `run` is
            cancelled then.
    """

    def __init__(
        self,
        place: Path,
        listening: sockets.Sockets,
        *,
        refusal: Callable[[], str],
        replaced: Callable[[int], Awaitable[object]],
    ) -> None:
        self._place = place
        self._listening = listening
        self._refusal = refusal
        self._replaced = replaced
        self.under_way = False
        self._door = _listen(place)
        self._inode = place.stat().st_ino

    async def run(self) -> None:
        """Answer new processes, one after the other, until one of them has taken over."""
        while True:
            with await self._accept() as connection:
                connection.setblocking(False)
                try:
                    if await self._serve(connection):
                        return
                except (OSError, EOFError, TimeoutError, ValueError) as error:
                    self.under_way = False
                    log.warning("a new process did not take over, this one goes on serving: %s", _words(error))

    async def _accept(self) -> socket.socket:
        while True:
            try:
                return (await asyncio.get_running_loop().sock_accept(self._door))[0]
            except OSError as error:  # descriptors are short, for a while
                log.warning("no new process can be heard, and so replace this one, for now: %s", _words(error))
                await asyncio.sleep(_PAUSE)

    def close(self) -> None:
        """Listen no more; the place is another process's where that has taken it."""
        self._door.close()
        try:
            if self._place.stat().st_ino == self._inode:
                self._place.unlink()
        except FileNotFoundError:
            return

    async def _serve(self, connection: socket.socket) -> bool:
        asked = await _areceive(connection, _ANSWER)
        why = self._refusal() or _misfit(asked)
        if why:
            await _asend(connection, {"refused": why, "pid": os.getpid()})
            log.warning("a new process is sent away: %s", why)
            return False
        log.info("process %s asks for the listening sockets, to replace this one", asked.get("pid"))
        numbers = [one.fileno() for each in self._listening.values() for one in each]
        names = {name: len(each) for name, each in self._listening.items()}
        self.under_way = True
        await _asend(connection, {"listening": names, "pid": os.getpid()})
        for parcel in _parcels(numbers):
            socket.send_fds(connection, [b"\0"], parcel)
        # The new one gives up by itself when it is late: it is to be the first to know that it was not ready.
        await _areceive(connection, READY + _ANSWER)
        await self._replaced(asked["pid"])
        await _asend(connection, {"replaced": True})
        return True


class Predecessor:
    """The process before, as the new one sees it.

    Args:
        connection: to it.
        pid: its number.
        held: its listening sockets, which are ours too.
    """

    def __init__(self, connection: socket.socket, pid: int, held: sockets.Sockets) -> None:
        self._connection = connection
        self.pid = pid
        self.held = held

    def __repr__(self) -> str:
        return f"<Predecessor {self.pid}>"

    @classmethod
    def find(cls, place: Path) -> Predecessor | None:
        """Ask whoever serves for its sockets; None where nobody does.

        Raises:
            NotReplaced: it does not hand them over.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_ANSWER)
        try:
            connection.connect(os.fspath(place))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        except OSError as error:
            connection.close()
            crowded = isinstance(error, BlockingIOError)
            why = "others ask already to replace it" if crowded else f"{place}: {_words(error)}"
            raise NotReplaced(f"the process that runs cannot be asked for anything: {why}") from error
        try:
            return cls(connection, *_take(connection))
        except NotReplaced:
            connection.close()
            raise
        except TimeoutError as error:
            connection.close()
            why = f"the process that runs does not answer within {_ANSWER:g} s: another may be replacing it"
            raise NotReplaced(why) from error
        except (OSError, EOFError, ValueError) as error:
            connection.close()
            raise NotReplaced(f"the process that runs hands nothing over: {_words(error)}") from error

    async def dismiss(self) -> None:
        """Tell it that we are ready: it stops accepting, and ends when it has finished what is in flight.

        One that has ended meanwhile needs no telling.
        """
        self._connection.setblocking(False)
        try:
            await _asend(self._connection, {"ready": True, "pid": os.getpid()})
            await _areceive(self._connection, _ANSWER)
        except (OSError, EOFError, TimeoutError) as error:
            log.warning("the process before, %d, ended before it was told to: %s", self.pid, _words(error))
        finally:
            self._connection.close()

    def close(self) -> None:
        """Let go of it; where it was not dismissed it learns that it goes on."""
        self._connection.close()


def _take(connection: socket.socket) -> tuple[int, sockets.Sockets]:
    connection.sendall(_packed({"take": _VERSION, "pid": os.getpid()}))
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    told = _unpacked(_exactly(connection, _bounded(length)))
    if "refused" in told:
        raise NotReplaced(f"process {told['pid']} goes on serving: {told['refused']}")
    names: Mapping[str, int] = told["listening"]
    numbers = iter(_descriptors(connection, sum(names.values())))
    return int(told["pid"]), sockets.adopt(
        {name: [next(numbers) for _ in range(count)] for name, count in names.items()}
    )


def _descriptors(connection: socket.socket, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        byte, numbers, _, _ = socket.recv_fds(connection, 1, _PARCEL)
        found += numbers
        if not byte or not numbers:
            raise EOFError(f"it ended after {len(found)} of {count} sockets")
    return found


def _parcels(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[at : at + _PARCEL] for at in range(0, len(numbers), _PARCEL))


def _misfit(asked: Mapping[str, Any]) -> str:
    if asked.get("take") == _VERSION:
        return "" if type(asked.get("pid")) is int else "it does not say which process it is"
    return f"it asks by version {asked.get('take')} of the handover, and this process knows {_VERSION}: stop it instead"


def _listen(place: Path) -> socket.socket:
    """Under another name first, and then over that of the process before, if there was one."""
    new = place.with_name(f".{os.getpid()}.new")
    new.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.bind(os.fspath(new))
        new.chmod(0o600)
        door.listen(4)
        new.rename(place)
    except OSError:
        door.close()
        raise
    door.setblocking(False)
    return door


# --- messages ----------------------------------------------------------------------------------------------


def _packed(message: Mapping[str, Any]) -> bytes:
    text = json.dumps(message).encode()
    return _LENGTH.pack(len(text)) + text


def _unpacked(text: bytes) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("not a message of a handover")  # noqa: TRY004 - what came is wrong, not its type
    return found


def _bounded(length: int) -> int:
    if length > _LONGEST:
        raise ValueError(f"a message of {length} bytes")
    return length


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        if not more:
            raise EOFError("it hung up")
        found += more
    return found


async def _asend(connection: socket.socket, message: Mapping[str, Any]) -> None:
    async with asyncio.timeout(_ANSWER):
        await asyncio.get_running_loop().sock_sendall(connection, _packed(message))


async def _areceive(connection: socket.socket, seconds: float) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        (length,) = _LENGTH.unpack(await _aexactly(connection, _LENGTH.size))
        return _unpacked(await _aexactly(connection, _bounded(length)))


async def _aexactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = await asyncio.get_running_loop().sock_recv(connection, size - len(found))
        if not more:
            raise EOFError("it hung up")
        found += more
    return found


def _words(error: BaseException) -> str:
    return str(error) or ("nothing was heard in time" if isinstance(error, TimeoutError) else type(error).__name__)

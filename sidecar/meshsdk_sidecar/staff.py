"""One worker's place: its sockets, which outlive it, and the process that serves at them now."""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import time
from collections.abc import Callable, Collection
from typing import Any

from meshsdk_sidecar.child import exit_code
from meshsdk_sidecar.interpreter import serving
from meshsdk_sidecar.link import Begin, Busy, Do, Done, Link
from meshsdk_sidecar.sockets import Sockets, close

__all__ = ["Post"]

SOON = 10.0
"""Seconds: a worker that ends earlier than this has crashed repeatedly."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0

_HANGING = 2.0  # seconds in which a process ends that has hung up


class Post:
    """A worker's place.

    Args:
        listening: its sockets, by listener.
        heard: told each message that is no answer.
        lost: told when the process has gone.

    Attributes:
        busy: what it last said of its connections.
        watching: the services it is told of.
        text: the metrics it last told.
        serving: whether it has begun to serve; one that has not is not replaced by itself.
    """

    def __init__(self, listening: Sockets, heard: Callable[[Post, Any], None], lost: Callable[[Post], None]) -> None:
        self._listening = listening
        self._heard = heard
        self._told_lost = lost
        self._link: Link | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._started = 0.0
        self._crashes = 0
        self.busy = Busy(0, 0)
        self.watching: set[str] = set()
        self.text = ""
        self.serving = False

    def __repr__(self) -> str:
        return f"<Post of worker {self.pid}>"

    @property
    def pid(self) -> int:
        """The process's number; 0 before the first."""
        return 0 if self._process is None else self._process.pid

    @property
    def numbers(self) -> dict[str, list[int]]:
        """The numbers of its sockets, here and there."""
        return {name: [one.fileno() for one in each] for name, each in self._listening.items()}

    async def start(self, begin: Begin) -> None:
        """Start a process, and say the first words to it."""
        ours, theirs = socket.socketpair()
        handed = [theirs.fileno(), *(number for each in self.numbers.values() for number in each)]
        handed += [] if begin.memory is None else [begin.memory]
        with theirs:
            command = [*serving("meshsdk_sidecar.worker"), str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=handed, stdin=subprocess.DEVNULL)  # noqa: ASYNC220 - 2 ms
        self._started = time.monotonic()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        _, self._link = await loop.create_unix_connection(lambda: Link(self._hear, self._lost), sock=ours)
        self._link.send(begin)

    def shut(self, names: Collection[str]) -> None:
        """Close these sockets; as long as they are open here, whoever comes is kept waiting and not refused."""
        close({name: self._listening.pop(name, ()) for name in names})

    def send(self, message: Any) -> None:
        """Tell it something; one that has gone is not told."""
        if self._link is not None:
            self._link.send(message)

    async def do(self, what: str, argument: Any = None) -> Any:
        """Have it do something, and wait for the answer.

        Raises:
            ConnectionError: it has gone.
        """
        if self._link is None or not self._link.stands:
            raise ConnectionError(f"worker {self.pid} has ended")
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._link.send(Do(number, what, argument))
            return await answer
        finally:
            self._asked.pop(number, None)

    def pause(self, now: float) -> float:
        """Seconds to wait before another process is started: none after a first crash."""
        self._crashes = self._crashes + 1 if now - self._started < SOON else 0
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (self._crashes - 2)) if self._crashes > 1 else 0.0

    async def ended(self) -> int:
        """The exit code; who has hung up and does not end is killed."""
        process, end = self._process, time.monotonic() + _HANGING
        if process is None:
            return 0
        while process.poll() is None:  # the end of a child is told to nobody without a thread or a handler of its own
            if time.monotonic() > end:
                process.kill()
            await asyncio.sleep(0.01)
        return exit_code(process.returncode)

    async def end(self, seconds: float) -> None:
        """Have it finish what it has begun, within `seconds`, and end."""
        try:
            async with asyncio.timeout(seconds + 1.0):
                await self.do("close", seconds)
        except (ConnectionError, TimeoutError):
            self.kill()
        await self.ended()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _hear(self, message: Any) -> None:
        match message:
            case Done(number, value):
                answer = self._asked.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(value)
            case Busy():
                self.busy = message
            case _:
                self._heard(self, message)

    def _lost(self) -> None:
        self._link = None
        self.busy = Busy(0, 0)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ConnectionError(f"worker {self.pid} has ended"))
        self._told_lost(self)

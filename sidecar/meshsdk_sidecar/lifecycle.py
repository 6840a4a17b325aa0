"""The life of a serving process, a sidecar's or a gateway's: it begins, is replaced or replaces another, and ends.

Rule 1  Every socket is open before anything is begun, so a port that is taken ends the start.
Rule 2  The first SIGTERM or SIGINT asks for the end: whoever comes is told, has `drain.wait` seconds to have seen it;
        then nobody is let in, and what is in flight is finished, within `drain.timeout`. A second one ends it at once.
Rule 3  A process that replaces another (`meshsdk_sidecar.handover`) serves once it knows all that it needs, and speaks
        to Consul and by its pages once that one is told. The one before leaves Consul alone, and ends when what it had
        begun is finished: clients that keep connections are told with their next answer, and have `PATIENT` seconds.
Rule 4  With several workers (`meshsdk_sidecar.control`) all this is the control process's: they only serve.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

from meshsdk.server.workers import Alone
from meshsdk.wire.aio.watch import Watch
from meshsdk_sidecar import sockets, supervisor
from meshsdk_sidecar.admin import Admin, Pages
from meshsdk_sidecar.handover import READY, Handover, NotReplaced, Predecessor, meeting_place
from meshsdk_sidecar.mesh import SidecarMesh
from meshsdk_sidecar.signals import end_on_signals

if TYPE_CHECKING:
    import socket

    from meshsdk_sidecar.control import Workers
    from meshsdk_sidecar.place import Place

__all__ = ["LOOK", "Carries", "File", "Lifecycle"]

log = logging.getLogger("meshsdk.sidecar")

LOOK = 0.2
"""Seconds between two looks at what tells nobody that it changes, such as whether the app has gone."""

PATIENT = 5.0
"""Seconds a replaced process leaves kept connections open that nobody asks anything on: a client that is busy asks
sooner, and is told; closing an idle one may cross a request that is on its way."""


class File(Protocol):
    """What a sidecar's and a gateway's file have in common here."""

    @property
    def meeting_port(self) -> int:
        """By which processes of the same instance find each other."""
        ...

    def listening(self) -> dict[str, Place]:
        """Every place to listen at, by name."""
        ...


class Carries(Protocol):
    """What serves: a `Plane`, a gateway's `Front`, or several processes with one of them each (`control.Workers`)."""

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        ...

    @property
    def connected(self) -> int:
        """Clients' connections that stand."""
        ...

    async def open(self, listening: Mapping[str, Sequence[socket.socket]], /) -> None:
        """Serve at these listeners."""
        ...

    async def retire(self) -> None:
        """Accept no more connections, and end each with its next answer."""
        ...

    async def drain_inbound(self, seconds: float) -> None:
        """Let nobody in any more, and finish what came in."""
        ...

    async def close(self, seconds: float = 0.0) -> None:
        """Close everything; what is in flight has so many seconds."""
        ...


class Lifecycle:
    """One process; what a sidecar or a gateway does beside is in the methods that begin with `_to_`.

    Args:
        file: what it serves by.
        mesh: its place in the mesh.
        plane: what serves.
        listening: its sockets, by the names of the file's sections.
        before: the process that is to be replaced.
        workers: the plane, where it is several processes.

    Attributes:
        replaced: whether another process serves at our places now.
    """

    kind: str
    """What it is called in words."""

    def __init__(
        self,
        file: File,
        mesh: SidecarMesh,
        plane: Carries,
        listening: sockets.Sockets,
        *,
        before: Predecessor | None,
        workers: Workers | None,
    ) -> None:
        self.replaced = False
        self._file = file
        self._mesh = mesh
        self._plane = plane
        self._workers = workers
        self._listening = listening
        self._before = before
        self._handover: Handover | None = None
        self._pages: list[Admin] = []
        self._stop = asyncio.Event()
        self._drained: asyncio.Task[None] | None = None

    @property
    def shared(self) -> bool:
        """Whether another process holds our sockets too: it serves in our place, or is about to."""
        return self.replaced or (self._handover is not None and self._handover.under_way)

    async def run(self) -> int:
        """Serve until the end; return the exit code."""
        end_on_signals(self._stop.set, self._kill)
        async with AsyncExitStack() as begun:
            await begun.enter_async_context(self._mesh)
            if self._before is None:
                await self._to_open()
                begun.push_async_callback(self._plane.close)
                await self._open_pages(begun)
            await self._to_begin(begun)
            if self._before is not None:
                await self._replace(self._before, begun)
                await self._open_pages(begun)
            self._open_handover(begun)
            self._to_tell()
            supervisor.tell(supervisor.READY)
            await self._until_end()
            return await self._end()

    # --- what sidecars and gateways do each in their way ------------------------------------------------------

    async def _to_open(self) -> None:
        """Begin to serve, where nobody is replaced."""
        await self._plane.open(self._listening)

    async def _to_begin(self, begun: AsyncExitStack) -> None:
        """Begin what goes on beside."""
        raise NotImplementedError

    def _to_tell(self) -> None:
        """Log where it listens."""
        for name, place in self._file.listening().items():
            log.info("%s at %s", name, place)

    def _to_show(self, pages: Pages) -> None:
        """Change what the pages show."""

    def _to_say_why_unready(self) -> str:
        """Why callers are to go elsewhere; empty while they are welcome."""
        raise NotImplementedError

    def _to_say_what_is_missing(self) -> str:
        """What is not known yet and must be, before anybody is served in place of a process that knows it."""
        return self._mesh.unready

    async def _to_hand_over(self) -> None:
        """Another process serves: leave to it what only one can do."""

    async def _to_leave(self) -> float:
        """The end begins: send callers elsewhere. Returns the seconds for what is in flight."""
        await asyncio.sleep(self._mesh.settings.drain_wait)
        return self._mesh.settings.drain_timeout

    async def _to_end(self) -> int:
        """Nobody is let in any more; returns the exit code."""
        return 0

    # --- beginning ------------------------------------------------------------------------------------------

    async def _open_pages(self, begun: AsyncExitStack) -> None:
        found = Pages(self._mesh, unready=self._to_say_why_unready, drain=self.drain, workers=self._workers)
        self._to_show(found)
        watch = Watch(asyncio.get_running_loop(), time.monotonic)
        begun.callback(watch.close)
        for name, table, anyone in (("admin", found.all, False), ("probes", found.seen, True)):
            if name in self._listening:
                admin = Admin(found, table, anyone=anyone, processes=self._serving_processes)
                await admin.open(self._listening[name], watch, time.monotonic)
                begun.callback(admin.close)
                self._pages.append(admin)

    def _serving_processes(self) -> tuple[int, ...]:
        return () if self._workers is None else self._workers.pids

    def _beside(self, begun: AsyncExitStack, work: Any) -> None:
        """Have a coroutine run until the end, which is told why where it ends before."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._tell_why)
        begun.callback(task.cancel)

    def _tell_why(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("something is no longer looked after: restart the %s", self.kind, exc_info=error)

    # --- one process after another --------------------------------------------------------------------------

    async def _replace(self, before: Predecessor, begun: AsyncExitStack) -> None:
        """Become ready, and take the place of the process before; raises `NotReplaced` where that goes on."""
        end = time.monotonic() + READY
        await self._mesh.await_known()
        while (why := self._to_say_what_is_missing()) and not self._stop.is_set():
            if time.monotonic() > end:
                raise NotReplaced(f"not ready within {READY:g} s ({why}): process {before.pid} goes on serving")
            await asyncio.sleep(LOOK / 10)
        if self._stop.is_set():
            raise self._given_up(before, why)
        await self._plane.open(self._listening)
        begun.push_async_callback(self._plane.close)
        if self._stop.is_set():  # that takes a while where there are workers; some may have come in to us already
            await self._plane.close(self._mesh.settings.drain_timeout)
            raise self._given_up(before, why)
        await before.dismiss()
        log.info("ready in place of process %d", before.pid)

    def _given_up(self, before: Predecessor, why: str) -> NotReplaced:
        missing = f" ({why})" if why else ""
        return NotReplaced(f"told to end before it was ready{missing}: process {before.pid} goes on serving")

    def _open_handover(self, begun: AsyncExitStack) -> None:
        try:
            place = meeting_place(self._mesh.settings, self._file.meeting_port)
            self._handover = handover = Handover(
                place, self._listening, refusal=self._unmoved, replaced=self._be_replaced
            )
        except (OSError, Alone) as error:
            log.warning("no new process can replace this one (meshsdk %s --replace): %s", self.kind, error)
            return
        begun.callback(handover.close)
        self._beside(begun, handover.run())

    def _unmoved(self) -> str:
        """Why another process cannot take over."""
        if self._drained is not None or self._stop.is_set():
            return "it is draining: start the new one when it has ended"
        return ""

    async def _be_replaced(self, pid: int) -> None:
        self.replaced = True
        supervisor.tell(supervisor.MAINPID.format(pid), supervisor.READY)
        log.info("another process serves now; what is in flight is finished")
        for admin in self._pages:
            admin.close()
        await self._to_hand_over()
        self._mesh.draining = True
        await self._plane.retire()
        self._stop.set()

    async def _finish(self) -> None:
        """What is in flight when another process has taken over."""
        clock, seconds = asyncio.get_running_loop().time, self._mesh.settings.drain_timeout
        end, patient = clock() + seconds, clock() + min(PATIENT, seconds)
        while self._plane.connected and clock() < patient:  # noqa: ASYNC110 - connections tell nobody when the last is gone
            await asyncio.sleep(LOOK / 10)
        await self._plane.close(max(0.0, end - clock()))
        log.info("finished: the process that replaced this one serves alone")

    # --- the end --------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Send callers elsewhere and finish what came in."""
        if self._drained is None:
            self._mesh.draining = True
            self._drained = asyncio.get_running_loop().create_task(self._drain())
            self._drained.add_done_callback(self._tell_why)

    async def _drain(self) -> None:
        await self._plane.drain_inbound(await self._to_leave())
        log.info("drained: nobody is let in any more")

    async def _until_end(self) -> None:
        await self._stop.wait()

    async def _end(self) -> int:
        if not self.replaced:
            log.info("stopping")
            supervisor.tell(supervisor.STOPPING)
            self.drain()
            assert self._drained is not None  # it was just begun
            await asyncio.wait({self._drained})
        if not self.replaced:  # by a process that began before that
            return await self._to_end()
        await self._finish()
        return 0

    def _kill(self) -> None:
        if self._workers is not None:
            self._workers.kill()

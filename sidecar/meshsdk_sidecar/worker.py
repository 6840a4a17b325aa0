"""A process that only serves: `python -m meshsdk_sidecar.worker NUMBER`, started by a control process.

Rule 1  It listens at sockets it was given and knows what it is told (`meshsdk_sidecar.link`): it asks neither Consul
        nor the disk, and has no pages.
Rule 2  It ends when it is told to, or when its control process is gone: then it finishes what it has begun.
Rule 3  Signals are for the control process, which tells its workers in the right order: whoever ends a whole group of
        processes at once, as a terminal and systemd do, reaches both.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from meshsdk.identity.holder import Identity
from meshsdk.identity.securing import Securing
from meshsdk.server.guard import Guard
from meshsdk.server.inbound import Intake
from meshsdk.telemetry import otel
from meshsdk.telemetry.access_log import AccessLog
from meshsdk.telemetry.gauges import readings_of
from meshsdk.telemetry.instruments import Reading
from meshsdk.telemetry.metrics import Metrics
from meshsdk.telemetry.prometheus import expose
from meshsdk.telemetry.sinks import Fanout
from meshsdk.telemetry.tracing import Tracing
from meshsdk.tokens.keeper import Tokens
from meshsdk_sidecar import sockets
from meshsdk_sidecar.link import Begin, Beside, Busy, Do, Done, Identified, Keys, Link, Own, Told
from meshsdk_sidecar.loops import new_loop
from meshsdk_sidecar.proxy.plane import Parts, Plane
from meshsdk_sidecar.pushed import OwnLoop, PushedIdentity, PushedKeys, PushedServices, shared

if TYPE_CHECKING:
    from meshsdk_sidecar.gateway.front import Front

__all__ = ["Worker", "main"]

log = logging.getLogger("meshsdk.sidecar")

TELL = 0.1
"""Seconds between two looks whether the numbers of connections and requests are worth telling."""


class Worker:
    """One worker.

    Args:
        begin: what it begins with.
        link: to the control process.
    """

    def __init__(self, begin: Begin, link: Link) -> None:
        self._begin = begin
        self._link = link
        self._own: Own = Own(shared(begin.defaults, begin.workers), None)
        self._listening = sockets.adopt(begin.listening)
        self._opened: set[str] = set()
        self._draining = False
        self.over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told = Busy(0, 0)
        self.metrics = Metrics()
        self._sink: Fanout[Any] = Fanout(self.metrics.sink, AccessLog(begin.service))
        beside = OwnLoop(asyncio.get_running_loop())
        self._provider = PushedIdentity()
        self._identity = Identity(self._provider, beside) if begin.identity else None
        self._services = PushedServices(link.send, begin.workers, self._sink, begin.idle)
        self._securing = Securing(self._identity, self._services.peek, begin.first_wait)
        self._keys = PushedKeys(link.send)
        self._tokens = Tokens(beside, source=self._keys.source)
        self._beside: Any = None
        self._plane: Plane | Front = self._carries(self._parts())
        self.metrics.observe_gauges(self._readings)
        self.metrics.observe_gauges(self._plane.readings)
        otel.export(self.metrics, begin.service)

    def _carries(self, parts: Parts) -> Any:
        begin = self._begin
        return Plane(begin.config, parts) if begin.make is None else begin.make(begin, parts, lambda: self._beside)

    def _parts(self) -> Parts:
        begin, tracing = self._begin, Tracing()
        guard = Guard(
            lambda: self._own.plan,
            intentions=lambda: self._own.intentions,
            trust_domain=self._trust_domain,
            tokens=self._tokens,
        )
        intake = Intake(
            clock=time.monotonic,
            tracing=tracing,
            sink=self._sink,
            closing=lambda: self._draining,
            access_log=lambda: self._own.plan.access_log,
            guard=guard,
            explain=begin.explain,
            own_id=self._own_id if begin.forward else None,
        )
        return Parts(
            services=self._services,
            secure=self._securing,
            generation=lambda: self._securing.generation,
            ready=self._securing.await_ready,
            intake=intake,
            own_plan=lambda: self._own.plan,
            context=lambda: None if self._identity is None else self._identity.server_context(),
            sink=self._sink,
            defaults=begin.defaults,
        )

    def hear(self, message: Any) -> None:
        """Take in a message."""
        match message:
            case Told():
                self._services.hear(message)
            case Own(plan, intentions):
                self._own = Own(shared(plan, self._begin.workers), intentions)
                self._tokens.follow(plan.jwt)
            case Keys():
                self._keys.hear(message)
            case Identified():
                self._provider.hear(message)
            case Beside(value):
                self._beside = value
            case Do():
                self._run(self._do(message))
            case _:
                raise TypeError(f"no message for a worker: {message!r}")

    def lost(self) -> None:
        """Rule 2: the control process is gone."""
        if self.over.is_set():
            return
        log.warning("the control process is gone: worker %d finishes what it has begun, and ends", os.getpid())
        self._services.lose("the control process has ended")
        self._run(self._finish())

    async def look(self) -> None:
        """Tell how busy we are, and let idle services go, until cancelled."""
        swept = time.monotonic()
        while True:
            busy = Busy(self._plane.connected, self._plane.in_flight)
            if busy != self._told:
                self._told = busy
                self._link.send(busy)
            if time.monotonic() - swept >= self._begin.idle / 2:
                swept = time.monotonic()
                self._services.sweep()
            await asyncio.sleep(TELL)

    async def _finish(self) -> None:
        self._draining = True
        await self._plane.close(self._begin.drain)
        self.over.set()

    async def _do(self, asked: Do) -> None:
        value = await self._doing(asked.what, asked.argument)
        self._link.send(Done(asked.number, value))
        if asked.what == "close":
            self.over.set()

    async def _doing(self, what: str, argument: Any) -> Any:
        match what:
            case "open":
                names = [name for name in argument if name in self._listening and name not in self._opened]
                self._opened.update(names)
                await self._plane.open({name: self._listening[name] for name in names})
            case "retire":
                self._draining = True
                await self._plane.retire()
            case "drain":
                self._draining = True
                await self._plane.drain_inbound(argument)
            case "close":
                await self._plane.close(argument)
            case "metrics":
                return expose(self.metrics.collect())
            case "clusters":
                return {cluster.service: _facts(cluster) for cluster in self._services}
            case "level":
                logging.getLogger("meshsdk").setLevel(argument)
            case _:
                raise ValueError(f"a worker cannot {what!r}")
        return None

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("worker %d could not do what it was told, and ends", os.getpid(), exc_info=error)
            self.over.set()

    def _trust_domain(self) -> str:
        return "" if self._identity is None else self._identity.trust_domain

    def _own_id(self) -> str:
        material = None if self._identity is None else self._identity.material
        return "" if material is None else str(material.spiffe_id)

    def _readings(self) -> Iterator[Reading]:
        if self._identity is not None:
            yield Reading("mesh.identity.handshake_failures", (), self._identity.refusals.total)
        for cluster in self._services:
            yield from readings_of(cluster)


def _facts(cluster: Any) -> dict[str, Any]:
    """What a worker knows of its calls to a service, for the page `/clusters`."""
    now = time.monotonic()
    return {
        "pid": os.getpid(),
        "in_flight": cluster.in_flight,
        "pending": cluster.pending,
        "breaker": cluster.breaker_state,
        "ejected": [str(state.endpoint) for state in cluster.states() if state.ejected_until > now],
    }


async def _serve(connection: socket.socket) -> int:
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[Begin | None] = loop.create_future()
    worker: Worker | None = None
    early: list[Any] = []

    def hear(message: Any) -> None:
        if worker is not None:
            worker.hear(message)
        elif begun.done():
            early.append(message)
        else:
            begun.set_result(message)

    def lost() -> None:
        if worker is not None:
            worker.lost()
        elif not begun.done():
            begun.set_result(None)

    _, link = await loop.create_unix_connection(lambda: Link(hear, lost), sock=connection)
    begin = await begun
    if begin is None:
        return 1
    logging.getLogger("meshsdk").setLevel(begin.level)
    worker = Worker(begin, link)
    for message in early:
        worker.hear(message)
    if not link.stands:
        return 1
    looking = asyncio.create_task(worker.look())
    await worker.over.wait()
    looking.cancel()
    link.close()
    return 0


def main(arguments: list[str]) -> int:
    """Serve.

    Args:
        arguments: the number of the descriptor by which the control process is reached.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # rule 3
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    connection = socket.socket(fileno=int(arguments[0]))
    connection.setblocking(False)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_serve(connection))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

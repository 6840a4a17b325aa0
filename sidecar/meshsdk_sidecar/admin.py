"""The sidecar's own pages, on loopback or at a unix socket: JSON, but for the metrics. Never part of the mesh's ports.

Rule 1  They are no way in for a web page that is open on this machine: a request whose Host is no name of this machine
        (DNS rebinding), or that changes something and comes from a web page (Origin), is refused.
Rule 2  Only a POST or PUT changes anything.
Rule 3  Nor are they reached through the mesh's ports, which lead to hosts outside, this machine included: a connection
        that the sidecar itself has opened is refused.
Rule 4  What others on the network may see (`probes`) is readiness, liveness and metrics.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from meshsdk.telemetry.prometheus import CONTENT_TYPE, expose
from meshsdk_sidecar import pages
from meshsdk_sidecar.kinds import is_loopback
from meshsdk_sidecar.origin import is_ours
from meshsdk_sidecar.proxy.downstream import Downstream, Patience
from meshsdk_sidecar.proxy.work import Waiting

if TYPE_CHECKING:
    from meshsdk.wire.aio.watch import Watch
    from meshsdk.wire.http1.requests import Asked, Refused
    from meshsdk_sidecar.control import Workers
    from meshsdk_sidecar.mesh import SidecarMesh

__all__ = ["Admin", "Answered", "Pages"]

log = logging.getLogger("meshsdk.sidecar")

MOST: Final = 4096
"""Bytes of a body that is read; none of these pages needs more than a word."""

CROWD: Final = 100
"""Connections to one `Admin`; where there are more the oldest goes, so that whoever asks is answered, however many hold
on. The limit of what is carried is not that of pages: an operator has to see a proxy that is full."""

_PATIENCE: Final = Patience(head=10.0, idle=60.0, body=10.0)

JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Answered:
    """What a page says: a value, shown as JSON, or text that has a form of its own."""

    status: int
    value: Any
    form: str = JSON
    allow: str = ""

    @property
    def body(self) -> bytes:
        """As it is sent."""
        if self.form != JSON:
            return str(self.value).encode()
        return (json.dumps(self.value, indent=2, default=_plain, ensure_ascii=False) + "\n").encode()

    @property
    def fields(self) -> tuple[tuple[bytes, bytes], ...]:
        """Never cached: each says what is true at this moment."""
        fields = [(b"content-type", self.form.encode()), (b"cache-control", b"no-store")]
        return (*fields, (b"allow", self.allow.encode())) if self.allow else tuple(fields)


Page = Callable[[Mapping[str, str], bytes], Answered | Awaitable[Answered]]
"""One page asked by one method, of the query's and the body's words; one that asks workers is awaited."""


class Pages:
    """What is answered to which request.

    Args:
        mesh: whose pages these are.
        unready: why callers are not sent to the app; empty while they are.
        drain: begin to send callers elsewhere.
        workers: the processes that serve; None where this one does.
    """

    def __init__(
        self,
        mesh: SidecarMesh,
        *,
        unready: Callable[[], str],
        drain: Callable[[], None],
        workers: Workers | None = None,
    ) -> None:
        self._workers = workers
        self._mesh = mesh
        self._unready = unready
        self._drain = drain
        self.seen: dict[str, dict[str, Page]] = {
            "/live": {"GET": lambda *_: Answered(200, {"live": True})},
            "/ready": {"GET": self._ready},
            "/metrics": {"GET": self._metrics if workers is None else self._merged},
        }
        self.all: dict[str, dict[str, Page]] = {
            **self.seen,
            "/clusters": {"GET": self._clusters if workers is None else self._called},
            "/config": {"GET": lambda *_: Answered(200, pages.config(mesh))},
            "/certs": {"GET": lambda *_: Answered(200, pages.certs(mesh))},
            "/policy": {"GET": lambda *_: Answered(200, pages.policy(mesh))},
            "/drain": {"POST": self._begin_drain},
            "/log": {"GET": lambda *_: Answered(200, pages.levels()), "PUT": self._log},
        }

    def answer(
        self, table: Mapping[str, Mapping[str, Page]], method: str, target: str, body: bytes
    ) -> Answered | Awaitable[Answered]:
        """Answer one request.

        Args:
            table: `all`, or `seen`, which is what others may see.
            target: path and query.
        """
        path, _, query = target.partition("?")
        methods = table.get(path)
        if methods is None:
            listed = {each: sorted(found) for each, found in table.items()}
            return Answered(200 if path == "/" else 404, {"pages": listed})
        page = methods.get("GET" if method == "HEAD" else method)
        if page is None:
            allow = ", ".join(sorted(methods))
            return Answered(405, {"error": f"{method} is not answered here: use {allow}"}, allow=allow)
        return page({name: values[-1] for name, values in parse_qs(query).items()}, body)

    def _ready(self, *_: Any) -> Answered:
        why = self._unready()
        return Answered(503 if why else 200, {"ready": not why} | ({"why": why} if why else {}))

    def _metrics(self, *_: Any) -> Answered:
        return Answered(200, expose(self._mesh.metrics.collect()), CONTENT_TYPE)

    async def _merged(self, *_: Any) -> Answered:
        assert self._workers is not None  # it is its page
        return Answered(200, await self._workers.metrics(), CONTENT_TYPE)

    def _clusters(self, *_: Any) -> Answered:
        return Answered(200, pages.clusters(self._mesh))

    async def _called(self, *_: Any) -> Answered:
        assert self._workers is not None  # it is its page
        return Answered(200, pages.of_workers(pages.clusters(self._mesh), await self._workers.calls()))

    def _begin_drain(self, *_: Any) -> Answered:
        self._drain()
        return Answered(202, {"draining": True, "then": "send SIGTERM to end the sidecar; its way out stays open"})

    def _log(self, query: Mapping[str, str], body: bytes) -> Answered:
        try:
            given = json.loads(body) if body.strip() else dict(query)
        except ValueError:
            given = None
        level = given.get("level") if isinstance(given, dict) else None
        if level not in pages.LEVELS:
            words = ", ".join(pages.LEVELS)
            return Answered(400, {"error": f'send {{"level": "debug"}} or ?level=debug; the levels are {words}'})
        pages.set_level(level)
        if self._workers is not None:
            self._workers.level(level)
        log.info("the log level is %s now", level)
        return Answered(200, pages.levels())


class Admin:
    """Serves pages at sockets; a door as the data plane's are, with nothing of the mesh behind it.

    Args:
        found: what to answer.
        table: which of the pages.
        anyone: whether clients are others on the network, who know this machine by any name.
        processes: others that the way out leads through, such as workers, by their numbers.
    """

    def __init__(
        self,
        found: Pages,
        table: Mapping[str, Mapping[str, Page]],
        *,
        anyone: bool = False,
        processes: Callable[[], Iterable[int]] = tuple,
    ) -> None:
        self._pages = found
        self._table = table
        self._anyone = anyone
        self._processes = processes
        self._servers: list[asyncio.Server] = []
        self._open: dict[Downstream, None] = {}  # in the order they came

    async def open(self, sockets: Sequence[socket.socket], watch: Watch, clock: Callable[[], float]) -> None:
        """Serve.

        Args:
            sockets: listening ones.
            watch, clock: of the loop.
        """
        loop = asyncio.get_running_loop()
        make = partial(Downstream, self, watch, clock, _PATIENCE)
        for one in sockets:
            serve = loop.create_unix_server if one.family == socket.AF_UNIX else loop.create_server
            self._servers.append(await serve(make, sock=one))

    def close(self) -> None:
        """Close all."""
        for server in self._servers:
            server.close()
        for downstream in tuple(self._open):
            downstream.transport.abort()

    # --- a door ---------------------------------------------------------------------------------------------

    def opened(self, downstream: Downstream) -> None:
        """A connection stands: read whether it comes through our own way out."""
        self._open[downstream] = None
        if len(self._open) > CROWD:
            next(iter(self._open)).transport.abort()
        peer, here = map(downstream.transport.get_extra_info, ("peername", "sockname"))
        if not self._anyone and isinstance(here, tuple):  # the other end has no name any more where it was reset
            downstream.who = not peer or is_ours(peer[:2], here[:2], self._processes())

    def closed(self, downstream: Downstream) -> None:
        """It is gone."""
        self._open.pop(downstream, None)

    def refused(self, downstream: Downstream, refused: Refused) -> None:
        """What came is no request, and is answered already."""

    def begin(self, downstream: Downstream, asked: Asked) -> None:
        """Answer a request, once it is here as a whole."""
        if asked.complete or sum(map(len, asked.pieces)) > MOST:
            self.answer(downstream, asked)
        else:
            downstream.work = _Reading(self, downstream, asked)

    def answer(self, downstream: Downstream, asked: Asked) -> None:
        """Answer a request."""
        body = b"".join(asked.pieces)
        asked.pieces.clear()
        downstream.taken(len(body))
        answered = self._refusal(asked, len(body), ours=bool(downstream.who))
        if answered is None:
            method, target = asked.method.decode("ascii"), asked.target.decode("latin-1")
            try:
                found = self._pages.answer(self._table, method, target, body)
                if not isinstance(found, Answered):
                    downstream.work = _Asking(downstream, found)
                    return
                answered = found
            except Exception as error:
                log.exception("the page %s broke off", target)
                answered = Answered(500, {"error": f"{type(error).__name__}: {error}"})
        downstream.reply(answered.status, answered.body, answered.fields)

    def _refusal(self, asked: Asked, size: int, *, ours: bool) -> Answered | None:
        """Rules 1 and 3, and what no page needs."""
        if ours:
            return Answered(403, {"error": "these pages are not reached through the mesh; ask 127.0.0.1 directly"})
        if size > MOST:
            return Answered(413, {"error": f"the body is longer than {MOST} bytes; a level is one word"})
        host = (asked.host or b"").decode("latin-1")
        if not self._anyone and not _is_here(host):
            return Answered(403, {"error": f"Host: {host[:100]} is no name of this machine; ask 127.0.0.1"})
        changes = asked.method not in {b"GET", b"HEAD"}
        if changes and any(name.lower() == b"origin" for name, _ in asked.fields):
            return Answered(403, {"error": "web pages may not change anything here"})
        return None


class _Reading(Waiting):
    """A request whose body is still coming."""

    __slots__ = ("_admin", "_asked", "_downstream")

    def __init__(self, admin: Admin, downstream: Downstream, asked: Asked) -> None:
        self._admin = admin
        self._downstream = downstream
        self._asked = asked

    def more(self) -> None:
        """More of it has come."""
        if self._asked.complete or sum(map(len, self._asked.pieces)) > MOST:
            self._admin.answer(self._downstream, self._asked)


class _Asking(Waiting):
    """A page that workers are asked for."""

    __slots__ = ("_downstream", "_task")

    def __init__(self, downstream: Downstream, found: Awaitable[Answered]) -> None:
        self._downstream = downstream
        self._task = asyncio.get_running_loop().create_task(self._reply(found))

    def abandon(self) -> None:
        """The client is gone."""
        self._task.cancel()

    async def _reply(self, found: Awaitable[Answered]) -> None:
        try:
            answered = await found
        except Exception as error:
            log.exception("a page broke off")
            answered = Answered(500, {"error": f"{type(error).__name__}: {error}"})
        self._downstream.reply(answered.status, answered.body, answered.fields)


def _is_here(host: str) -> bool:
    """Whether an authority is this machine's; a client of a unix socket writes what it likes, mostly `localhost`."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return not name or is_loopback(name)


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    return str(value)

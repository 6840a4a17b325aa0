"""The data plane of a sidecar or gateway with several processes: what a `Plane` or `Front` is to one with one.

Rule 1  This process alone talks to Consul, keeps the identity and has the pages; its workers serve, each at sockets of
        its own (SO_REUSEPORT: the system spreads connections), and are told what they need to know.
Rule 2  The sockets stay open here, so what waits to be accepted survives a worker that crashes. Another takes its place
        at once, at the same sockets; one that crashes again soon, after a pause that doubles. The others go on.
Rule 3  Sums never fall: what a worker had counted when it was last asked is kept when it is gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from meshsdk.errors import MeshError
from meshsdk.identity.events import Event, Issued, Recovered, Trouble
from meshsdk.policy.effective import DEFAULTS
from meshsdk.telemetry.prometheus import expose, lasting, merge
from meshsdk_sidecar import sockets
from meshsdk_sidecar.link import AskKeys, Begin, Beside, Forget, Identified, Keys, Own, Told, Watch
from meshsdk_sidecar.staff import Post
from meshsdk_sidecar.start import OURS

if TYPE_CHECKING:
    from meshsdk.core.model import Snapshot
    from meshsdk.core.plan import Plan
    from meshsdk_sidecar.config import Config
    from meshsdk_sidecar.gateway.config import GatewayConfig
    from meshsdk_sidecar.mesh import SidecarMesh
    from meshsdk_sidecar.proxy.plane import Parts

__all__ = ["Workers"]

log = logging.getLogger("meshsdk.sidecar")

FOLLOW = 0.05
"""Seconds between two looks whether something has changed that workers are to know: comparisons, some µs."""

CLOSING = 0.5
"""Seconds a worker has at least to end what it has begun: what is known here of it is up to 0.1 s old."""

ANSWER = 5.0
"""Seconds a worker has to do what takes it milliseconds."""


class Workers:
    """Several processes that serve.

    Args:
        config: the file.
        mesh: what is known.
        listening: all listening sockets, by listener.
        make, memory: as of `Begin`.
        beside: tells what else workers are to know (`Beside`); another object when that has changed.
    """

    def __init__(
        self,
        config: Config | GatewayConfig,
        mesh: SidecarMesh,
        listening: sockets.Sockets,
        *,
        make: Callable[[Begin, Parts, Callable[[], Any]], Any] | None = None,
        beside: Callable[[], Any] = lambda: None,
        memory: int | None = None,
    ) -> None:
        self._config = config
        self._mesh = mesh
        self._make = make
        self._memory = memory
        self._beside = beside
        self._besides = Beside(None)
        self._keys = Keys({})
        self._trouble: Trouble | None = None
        self._own: Own | None = None
        self._identified: Identified | None = None
        self._known: dict[str, tuple[Snapshot, Plan]] = {}
        self._opened: list[str] = []
        self._inherited = ""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._begun = self._retired = self._closing = False
        served = {name: each for name, each in listening.items() if name not in OURS}
        self._ways_in = {"inbound"} if make is None else set(served)  # to a gateway there is nothing else
        self._posts = [Post(each, self._hear, self._lost) for each in sockets.dealt(served, config.workers)]
        if mesh.identity is not None:
            mesh.identity.listen(self._note)

    # --- as a plane -------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Requests that have not ended, both ways."""
        return sum(post.busy.in_flight for post in self._posts)

    @property
    def pids(self) -> tuple[int, ...]:
        """The numbers of the processes."""
        return tuple(post.pid for post in self._posts)

    @property
    def connected(self) -> int:
        """Clients' connections that stand, both ways."""
        return sum(post.busy.connected for post in self._posts)

    async def open(self, listening: Mapping[str, Any]) -> None:
        """Serve at these listeners; the first time starts the workers.

        Raises:
            MeshError: a worker cannot begin; its log says why.
        """
        names = [name for name in listening if name not in OURS]
        self._opened += names
        self._push()
        if self._begun:
            await self._each("open", names)
            return
        self._begun = True
        self._run(self._follow())
        for found in await asyncio.gather(*map(self._begin, self._posts), return_exceptions=True):
            if isinstance(found, ConnectionError):
                raise MeshError("a worker ended before it served: the log says why") from found
            if found is not None:
                raise found

    async def retire(self) -> None:
        """As `Plane.retire`, in each; one that crashes now is not replaced."""
        self._retired = True
        await self._each("retire")

    async def drain_inbound(self, seconds: float) -> None:
        """As `Plane.drain_inbound`, in each."""
        self._opened = [name for name in self._opened if name not in self._ways_in]
        for post in self._posts:
            post.shut(self._ways_in)
        await self._each("drain", seconds, within=seconds + CLOSING)

    async def close(self, seconds: float = 0.0) -> None:
        """As `Plane.close`, in each; all have ended then."""
        if self._closing:
            return
        self._closing = True
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*(post.end(max(CLOSING, seconds)) for post in self._posts))

    def kill(self) -> None:
        """End all of them at once."""
        self._closing = True
        for post in self._posts:
            post.kill()

    # --- for the pages ----------------------------------------------------------------------------------------

    async def metrics(self) -> str:
        """The text of all processes (rule 3)."""
        await asyncio.gather(*map(_counted, self._posts))
        own = expose(self._mesh.metrics.collect())
        return merge([own, self._inherited, *(post.text for post in self._posts)])

    async def calls(self) -> dict[str, list[dict[str, Any]]]:
        """What each worker knows of its calls, by service."""
        found: dict[str, list[dict[str, Any]]] = {}
        for told in await self._each("clusters"):
            if isinstance(told, dict):
                for service, facts in told.items():
                    found.setdefault(service, []).append(facts)
        return found

    def level(self, level: str) -> None:
        """Log from this level on, in each."""
        self._run(self._each("level", level.upper()))

    # --- beginning and replacing --------------------------------------------------------------------------------

    async def _begin(self, post: Post) -> None:
        await post.start(self._first_words(post))
        for told in (self._own, self._identified, self._besides, self._keys):
            if told is not None:
                post.send(told)
        await post.do("open", list(self._opened))
        post.serving = True

    def _first_words(self, post: Post) -> Begin:
        config, settings, count = self._config, self._mesh.settings, len(self._posts)
        most = config.limits.connections
        limits: Any = replace(config.limits, connections=None if most is None else -(-most // count))
        return Begin(
            config=replace(config, limits=limits),
            service=settings.service,
            listening=post.numbers,
            workers=count,
            defaults=DEFAULTS,
            identity=self._mesh.identity is not None,
            first_wait=settings.first_wait,
            idle=settings.idle_watch,
            drain=settings.drain_timeout,
            explain=settings.explain_denials,
            forward=settings.forward_client_cert,
            level=logging.getLogger("meshsdk").level,
            number=self._posts.index(post),
            make=self._make,
            memory=self._memory,
        )

    def _lost(self, post: Post) -> None:
        """Rules 2 and 3."""
        self._inherited = merge([self._inherited, lasting(post.text)])
        post.text = ""
        self._forget(*post.watching)
        post.watching.clear()
        if post.serving and not (self._closing or self._retired):
            self._run(self._replace(post))

    async def _replace(self, post: Post) -> None:
        while True:
            pause = post.pause(time.monotonic())
            code = await post.ended()
            after = f" in {pause:g} s" if pause else ""
            log.error("worker %d has ended with %s: another takes its place%s", post.pid, code, after)
            await asyncio.sleep(pause)
            post.serving = False
            try:
                await self._begin(post)
            except (OSError, ConnectionError) as error:
                log.error("it did not begin: %s", error)
                continue
            log.info("worker %d serves", post.pid)
            return

    # --- telling ------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW)
            self._push()

    def _push(self) -> None:
        """Tell what has changed since this was last called."""
        mesh = self._mesh
        plan, intentions = mesh.directory.own_plan(), mesh.own_intentions
        if self._own is None or self._own.plan is not plan or self._own.intentions is not intentions:
            self._own = Own(plan, intentions)
            self._tell(self._own)
        material = None if mesh.identity is None else mesh.identity.material
        found = material or self._trouble
        if found is not None and (self._identified is None or self._identified.found is not found):
            self._identified = Identified(found)
            self._tell(self._identified)
        mesh.tokens.follow(plan.jwt)
        if self._keys.looks != (looks := mesh.tokens.looks()):
            self._keys = Keys(looks)
            self._tell(self._keys)
        if self._besides.value is not (beside := self._beside()):
            self._besides = Beside(beside)
            self._tell(self._besides)
        for service in tuple(self._known):
            self._push_service(service)

    def _push_service(self, service: str) -> None:
        cluster = self._mesh.directory.peek(service)
        if cluster is None:  # nobody calls it from this process, so it turned cold
            self._run(self._keep_warm(service))
            return
        snapshot, plan = self._known[service]
        if cluster.snapshot is snapshot and cluster.plan is plan:
            return
        self._known[service] = cluster.snapshot, cluster.plan
        told = Told(
            service,
            None if cluster.snapshot is snapshot else cluster.snapshot,
            None if cluster.plan is plan else cluster.plan,
        )
        for post in self._posts:
            if service in post.watching:
                post.send(told)

    async def _keep_warm(self, service: str) -> None:
        try:
            await self._mesh.directory.acluster(service)
        except MeshError as error:
            log.debug("%s is followed no more: %s", service, error)

    async def _watch(self, post: Post, service: str) -> None:
        try:
            cluster = await self._mesh.directory.acluster(service)
        except MeshError as error:
            post.send(Told(service, error=error))
            return
        if service in self._known:
            self._push_service(service)  # the others are told of all that this one is
        self._known[service] = cluster.snapshot, cluster.plan
        post.watching.add(service)
        post.send(Told(service, cluster.snapshot, cluster.plan))

    def _forget(self, *services: str) -> None:
        for service in services:
            if not any(service in post.watching for post in self._posts):
                self._known.pop(service, None)

    def _tell(self, message: Any) -> None:
        for post in self._posts:
            post.send(message)

    # --- being told ---------------------------------------------------------------------------------------------

    def _hear(self, post: Post, message: Any) -> None:
        match message:
            case Watch(service):
                self._run(self._watch(post, service))
            case Forget(service):
                post.watching.discard(service)
                self._forget(service)
            case AskKeys(location):
                self._mesh.tokens.ask(location)
            case _:
                raise TypeError(f"no message of a worker: {message!r}")

    def _note(self, event: Event) -> None:
        """Of the identity, on the background's thread: one assignment, which `_push` reads."""
        if isinstance(event, Trouble):
            self._trouble = event
        elif isinstance(event, (Issued, Recovered)):
            self._trouble = None

    async def _each(self, what: str, argument: Any = None, *, within: float = ANSWER) -> list[Any]:
        """What each answers, or why it does not; one that has gone has another come, who begins where we are."""
        work = [asyncio.wait_for(post.do(what, argument), within) for post in self._posts]
        return await asyncio.gather(*work, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, ConnectionError):
            log.error("the workers are no longer looked after: restart it", exc_info=error)


async def _counted(post: Post) -> None:
    """One that is gone, or too busy to say what it has counted, is shown as it was when it last said so."""
    try:
        async with asyncio.timeout(1.0):
            post.text = await post.do("metrics")
    except (ConnectionError, TimeoutError) as error:
        log.warning("the metrics of worker %d are those of the scrape before: %s", post.pid, error or "no answer")

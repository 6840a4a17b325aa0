"""Where the mesh's callers come in: a port of our own beside an ASGI server's, or the port of a WSGI server that takes
TLS by our context; and what callers are told of it in the registry.

Rule 1  Our own port is opened after the application's own has answered a request of this process: importing an
        application, or running its lifespan in a test, opens nothing.
Rule 2  It follows the policy while the process lives: `off` closes it, and requests in flight have `drain_timeout`.
        Without a certificate it is not opened, unless the policy is `strict`: then clear text would be refused anyway.
Rule 3  What is registered is what is open now. `mesh-tls` is only told while there is a certificate to show.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from meshsdk.config import Settings
from meshsdk.core.model import TLS_META
from meshsdk.server.address import loopback
from meshsdk.server.listener import Listener, Serves
from meshsdk.server.sniffing import SniffingContext

__all__ = ["Certificate", "Entrance", "entrance_at", "entrances"]

log = logging.getLogger("meshsdk.server")

LOOP_WAIT = 2.0
"""Seconds the application's loop has to answer; one that blocks for longer is asked again later."""

T = TypeVar("T")


class Certificate(Protocol):
    """What is asked of `meshsdk.identity.holder.Identity` here."""

    @property
    def material(self) -> object | None:
        """What is in force; None before the first and after its end."""
        ...

    def server_context(self) -> ssl.SSLContext:
        """For handshakes, following what is in force."""
        ...

    def wait_answer(self, timeout: float) -> None:
        """Wait until there is material, or a reason why there is none; from a thread."""
        ...

    async def await_answer(self, seconds: float) -> None:
        """Wait until there is material, or a reason why there is none; from any event loop."""
        ...


class Entrance:
    """The way in for one served application.

    Args:
        settings: identity, port, mesh_port, tls_host, address, first_wait.
        identity: the certificate; None where the settings turn it off.
        mode: the policy in force: `strict`, `permissive` or `off`.
        known: waits, a bounded time, until everything is known that decides who may pass.
        alone: whether no other process of this instance serves on this machine.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        identity: Certificate | None,
        mode: Callable[[], str],
        known: Callable[[], Awaitable[None]],
        alone: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._mode = mode
        self._known = known
        self._alone = alone
        self._own_port = False
        self._sniffing = SniffingContext(self._current)
        self._told = ""
        self.forked()
        _entrances.add(self)

    def forked(self) -> None:
        """What each process starts with."""
        self.hosted = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serve: Callable[[], Serves] | None = None
        self._listener: Listener | None = None
        self._drains: set[asyncio.Task[None]] = set()
        self._asked = False

    @property
    def port(self) -> int | None:
        """The application's own."""
        return self._settings.port

    @property
    def is_open(self) -> bool:
        """Whether a port of our own is open, or was and its requests in flight are not answered yet."""
        return self._listener is not None or bool(self._drains)

    # --- told by the adapters -------------------------------------------------------------------------------

    def host(self, app: Any, state: dict[str, Any]) -> None:
        """Remember what to serve, and on which loop: the running one.

        Args:
            app: an ASGI application whose lifespan somebody else runs.
            state: what that lifespan left for requests.
        """
        self.hosted = True
        if self._identity is None or self._settings.mesh_port is None:
            return
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            log.warning("the mesh's own port needs asyncio; this server runs another loop, so it takes clear text only")
            return
        self._serve = lambda: _serving(app, state)

    def context(self) -> SniffingContext:
        """For a server that takes TLS on the application's own port, in clear text as well."""
        self._own_port = True
        return self._sniffing

    def _current(self) -> ssl.SSLContext | None:
        if self._identity is None or self._mode() == "off":
            return None
        # A worker that has just begun serves the port that others registered; a thread can wait for its certificate.
        self._identity.wait_answer(self._settings.first_wait)
        return self._identity.server_context()

    # --- on the background loop -----------------------------------------------------------------------------

    async def follow(self) -> bool:
        """Open or close as policy and certificate have it; say whether the process may be registered now."""
        if self._identity is None:
            self._warn_of_strict("identity is off in its settings")
            return True
        if not self._asked:
            self._asked = True
            wait = self._settings.first_wait
            await asyncio.gather(self._identity.await_answer(wait), self._known())
        mode, certified = self._mode(), self._identity.material is not None
        if mode == "off":
            await self._shut(self._settings.drain_timeout)
        elif self._listener is None and not self._own_port and (certified or mode == "strict"):
            await self._open(self._identity)
        if not self._takes_tls:
            self._warn_of_strict("this server takes clear text only")
        if mode == "off" or self._settings.identity == "auto":
            return True
        if not (certified and self._takes_tls):
            self._tell(f"not registered: {self._lack(certified=certified)}")
        return certified and self._takes_tls

    def told(self) -> tuple[int | None, dict[str, str]]:
        """The port and the meta that callers are to be told of now; None for the application's own port."""
        mode = self._mode()
        if self._identity is None or mode == "off" or not self._takes_tls:
            return None, {}
        shown = self._identity.material is not None or mode == "strict"
        return self._listener.port if self._listener is not None else None, {TLS_META: mode} if shown else {}

    @property
    def is_native(self) -> bool:
        """Whether callers with certificates of Consul's CA, such as its own proxies, are to find what is open now."""
        return bool(self.told()[1]) and self._settings.identity in {"auto", "consul"}

    async def close(self, seconds: float) -> None:
        """Close our own port; requests in flight have so many seconds."""
        await self._shut(seconds)
        if self._loop is not None:
            await self._on(self._loop, self._drained, LOOP_WAIT + seconds)
        self._loop = self._listener = None

    @property
    def _takes_tls(self) -> bool:
        return self._own_port or self._listener is not None

    async def _open(self, identity: Certificate) -> None:
        port = self._settings.mesh_port
        if self._loop is None or self._serve is None or port is None:
            return
        loop, serve, context = self._loop, self._serve, identity.server_context()

        async def opening() -> None:
            # A loop that was blocked comes to this late: another try may have come before, or the end.
            if self._loop is not loop or self._listener is not None:
                return
            made = Listener(
                serve(), context=context, strict=lambda: self._mode() == "strict", host=self._host(), port=port
            )
            await made.open(alone=self._alone())
            self._listener = made  # not returned: who asked for it may have stopped waiting
            log.info("port %d takes the mesh's callers (tls.mode: %s)", port, self._mode())

        try:
            await self._on(loop, opening, LOOP_WAIT)
        except ImportError as error:
            self._tell(f"the mesh's own port is not opened: {error}; pip install 'meshsdk[server]'")
        except OSError as error:
            self._tell(
                f"the mesh's own port is not opened: {error.strerror or error}; give another one (MESH_TLS_PORT)"
            )

    async def _shut(self, seconds: float) -> None:
        """Take nobody more; `_drained` waits for the requests in flight, which have so many seconds."""
        listener, loop = self._listener, self._loop
        if listener is None or loop is None:
            return

        async def shutting() -> None:
            await listener.stop()
            if self._listener is listener:
                self._listener = None
            drain = loop.create_task(listener.close(seconds))
            self._drains.add(drain)
            drain.add_done_callback(self._drains.discard)

        await self._on(loop, shutting, LOOP_WAIT)

    async def _drained(self) -> None:
        if self._drains:
            await asyncio.wait(self._drains)

    async def _on(
        self, loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]], seconds: float
    ) -> T | None:
        """Run something on the application's loop; None where it has ended or does not answer."""
        alive: asyncio.Event = asyncio.Event()
        here = asyncio.get_running_loop()

        async def answering() -> T:
            here.call_soon_threadsafe(alive.set)
            return await work()

        coroutine = answering()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError:  # it is closed
            coroutine.close()
            return None
        try:
            async with asyncio.timeout(LOOP_WAIT):
                await alive.wait()
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            future.cancel()
            log.debug("the application's loop does not answer")
            return None

    def _host(self) -> str:
        return self._settings.tls_host or loopback(self._settings.address)

    def _lack(self, *, certified: bool) -> str:
        if not certified:
            state = getattr(self._identity, "state", None)
            return getattr(state, "reason", "") or "there is no certificate"
        return f"this server takes no TLS; use `meshsdk run`, or {_UNDER_GUNICORN}"

    def _warn_of_strict(self, why: str) -> None:
        if self._mode() == "strict":
            self._tell(f"the policy is tls.mode: strict and {why}: every request is refused; {_UNDER_GUNICORN}")

    def _tell(self, words: str) -> None:
        if words != self._told:
            self._told = words
            log.warning("%s: %s", self._settings.service, words)


_UNDER_GUNICORN = "under gunicorn put `from meshsdk.server.gunicorn import *` into its configuration"


def _serving(app: Any, state: dict[str, Any]) -> Serves:
    from meshsdk.server.protocol import Serving  # imports uvicorn

    return Serving(app, state)


_entrances: WeakSet[Entrance] = WeakSet()


def entrances() -> list[Entrance]:
    """Those of this process: one for each Mesh that serves an application."""
    return list(_entrances)


def entrance_at(port: int) -> Entrance | None:
    """The entrance of the application that is served on a port; where none has said so, the only one there is."""
    found = list(_entrances)
    at_port = [entrance for entrance in found if entrance.port == port]
    if at_port:
        return at_port[0]
    return found[0] if len(found) == 1 else None


def _after_fork() -> None:
    for entrance in list(_entrances):
        entrance.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

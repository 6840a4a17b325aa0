"""Serves the dev agent: `DevAgent` in the caller's event loop, `running_agent` in a thread of its own.

Needs uvicorn and starlette (`pip install 'meshsdk[server]'`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from meshsdk_registry.agent.api import Api
from meshsdk_registry.agent.authority import JITTER, LEAF_LIFE, ROOT_LIFE, Lifetimes
from meshsdk_registry.agent.state import State

__all__ = ["AgentThread", "DevAgent", "running_agent"]

# asyncio takes two turns of its loop from an accepted socket to a connection of its server.
_LAST_TURNS = 3

MAX_CONNECTIONS = 200
"""Of one address, as `limits.http_max_conns_per_client` of a real agent."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the program around it owns the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _Connections:
    """The open connections by peer; makes protocols that hang up on the one too many without a word."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[str, set[asyncio.Transport]] = {}

    def protocol(self) -> type[asyncio.Protocol]:
        connections = self

        class Limited(cast("type[Any]", AutoHTTPProtocol)):  # type: ignore[misc]  # chosen by uvicorn at import
            peer: str | None = None

            def connection_made(self, transport: asyncio.Transport) -> None:
                self.peer = connections.admit(transport)
                if self.peer is None:
                    transport.close()
                else:
                    super().connection_made(transport)

            def data_received(self, data: bytes) -> None:
                if self.peer is not None:
                    super().data_received(data)

            def connection_lost(self, exc: Exception | None) -> None:
                if self.peer is not None:
                    connections.forget(self.peer, self.transport)
                    super().connection_lost(exc)

        return Limited

    def admit(self, transport: asyncio.Transport) -> str | None:
        name = transport.get_extra_info("peername")
        peer = str(name[0]) if isinstance(name, tuple) else "unix"
        kept = self._open.setdefault(peer, set())
        if len(kept) >= self._limit:
            return None
        kept.add(transport)
        return peer

    def forget(self, peer: str, transport: asyncio.Transport) -> None:
        self._open[peer].discard(transport)

    def abort(self) -> None:
        for transport in [transport for kept in self._open.values() for transport in kept]:
            transport.abort()


class DevAgent:
    """A small Consul in memory: `async with DevAgent() as agent`, then `agent.url`.

    Args:
        host: an address of this machine; it is for laptops and tests, so loopback.
        port: 0 takes a free one, which a restart keeps.
        uds: path of a unix socket instead of host and port.
        certfile, keyfile: PEM files to serve https.
        leaf_ttl, root_ttl: seconds that the CA's certificates live, 1 or more.
        rotation_jitter: seconds within which leafs are signed anew after a rotation of the CA; Consul takes up to 30.
        intention_default: what it says and does where no intention is about a caller. In Consul `deny` is part of the
            ACL system; this agent knows no tokens all the same.
        clock: monotonic seconds, for TTLs and renewals.

    Raises:
        ValueError: a lifetime that no certificate can have.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        uds: str | None = None,
        certfile: str | os.PathLike[str] | None = None,
        keyfile: str | os.PathLike[str] | None = None,
        node: str = "dev",
        datacenter: str = "dc1",
        leaf_ttl: float = LEAF_LIFE,
        root_ttl: float = ROOT_LIFE,
        rotation_jitter: float = JITTER,
        intention_default: Literal["allow", "deny"] = "allow",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host, self.port, self.uds = host, port, uds
        self._certfile, self._keyfile = certfile, keyfile
        self._node, self._datacenter, self._clock = node, datacenter, clock
        self._intention_default = intention_default
        self._lifetimes = Lifetimes(leaf_ttl, root_ttl, rotation_jitter)
        self.state = self._new_state()
        self._server: _Server | None = None
        self._connections = _Connections(MAX_CONNECTIONS)
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<DevAgent {self.url} {'running' if self._server else 'stopped'}>"

    @property
    def url(self) -> str:
        """Where it listens, in the form `Consul` takes."""
        if self.uds:
            return f"unix://{self.uds}"
        return f"{'https' if self._certfile else 'http'}://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, *, empty: bool = False) -> None:
        """Listen, with the state of before; `empty` forgets it, as `consul agent -dev` does. OSError: port taken."""
        if self._server:
            return
        if empty:
            self.state = self._new_state()
        api = Api(self.state, self._clock)
        self._connections = _Connections(MAX_CONNECTIONS)
        config = uvicorn.Config(
            api.app,
            http=self._connections.protocol(),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            ssl_certfile=self._certfile,
            ssl_keyfile=self._keyfile,
            # Consul closes no idle connection. uvicorn would after 5 s, which is when heartbeats come.
            timeout_keep_alive=3600,
            timeout_graceful_shutdown=1,
        )
        listener = self._listen()
        self._server = _Server(config)
        loop = asyncio.get_running_loop()
        served = loop.create_task(self._server.serve(sockets=[listener]))
        self._tasks = [served, loop.create_task(self._expire(api))]
        while not self._server.started:
            if served.done():
                self._server = None
                self._tasks.pop().cancel()
                await served
                raise OSError(f"the dev agent could not start at {self.url}")
            await asyncio.sleep(0.001)

    async def stop(self) -> None:
        """Hang up on everyone, as a process that dies; the state stays for the next start."""
        if not self._server:
            return
        loop = asyncio.get_running_loop()
        for listener in self._server.servers:
            for sock in listener.sockets:
                loop.remove_reader(sock)
        # A socket that was accepted and not set up yet when its server closes, asyncio loses.
        for _ in range(_LAST_TURNS):
            await asyncio.sleep(0)
        for listener in self._server.servers:
            listener.close()
        self._connections.abort()
        self._server.should_exit = True
        served, expiring = self._tasks
        expiring.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await expiring
        await served
        self._server = None

    def _new_state(self) -> State:
        return State(
            self._node,
            self._datacenter,
            lifetimes=self._lifetimes,
            clock=self._clock,
            intention_default=self._intention_default,
        )

    def _listen(self) -> socket.socket:
        if self.uds:
            Path(self.uds).unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.uds)
            return listener
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # The protocol is named because asyncio sets TCP_NODELAY only then; else each answer waits 40 ms for an ACK.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self.host, self.port))
        except OSError as error:
            listener.close()
            raise OSError(error.errno, f"the dev agent cannot listen at {self.url}: {error.strerror}") from error
        self.port = listener.getsockname()[1]
        return listener

    async def _expire(self, api: Api) -> None:
        while True:
            self.state.expire(self._clock())
            deadline = self.state.next_deadline()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if deadline is None else max(0.0, deadline - self._clock())):
                    await api.news.wait()


class AgentThread:
    """A `DevAgent` on a loop in a thread of its own, for programs without one. All methods block."""

    def __init__(self, agent: DevAgent) -> None:
        self._agent = agent
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="meshsdk-dev-agent", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens, in the form `Consul` takes."""
        return self._agent.url

    def start(self, *, empty: bool = False) -> None:
        """See `DevAgent.start`."""
        if not self._thread.ident:
            self._thread.start()
        self._do(self._agent.start(empty=empty))

    def stop(self) -> None:
        """See `DevAgent.stop`."""
        self._do(self._agent.stop())

    def close(self) -> None:
        """Stop for good and end the thread."""
        if self._thread.ident:
            self._do(self._agent.stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


@contextlib.contextmanager
def running_agent(**options: Any) -> Iterator[AgentThread]:
    """Run a dev agent in a thread while the block runs; the options are those of `DevAgent`."""
    thread = AgentThread(DevAgent(**options))
    try:
        thread.start()
        yield thread
    finally:
        thread.close()

"""HTTP/1.1 on the mesh's own port: uvicorn's protocol, which also knows who calls.

Rule 1  Nobody holds a place for long who asks nothing: a head that comes in parts has `HEAD_SECONDS` from the first
        of them, and whoever waits for anything else `KEEP_ALIVE`.
Rule 2  No more than `HEAD` bytes are kept of a head, or of trailers, that do not end: httptools joins the parts of a
        field anew with each that comes, which would keep everybody else waiting.
Rule 3  Nobody is served whose certificate has expired, however many requests wait on the connection.
"""

from __future__ import annotations

import asyncio
import logging
from email.utils import formatdate
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from meshsdk.server.answers import Answer
from meshsdk.server.verified import PEER, verified

__all__ = ["MeshProtocol", "Serving"]

log = logging.getLogger("meshsdk.server")

KEEP_ALIVE = 75.0
"""Seconds an idle connection is kept, as nginx does: callers pool them, and each new one costs a handshake."""

HEAD = 64 * 1024
HEAD_SECONDS = 5.0


class MeshProtocol(HttpToolsProtocol):
    """One connection, in TLS or in clear text."""

    # Beyond some 30 attributes Python keeps all of an object in a dictionary, and each request takes 1 µs longer.
    __slots__ = ("_barren", "_fed", "_slow", "_verified")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Read the caller's identity, once for all requests of the connection."""
        super().connection_made(transport)
        self._barren = 0  # bytes of reads since the last that brought a whole head or a piece of a body
        self._fed = False  # whether this one has brought a piece of a body
        self._slow: asyncio.TimerHandle | None = None
        self._keep()
        self._verified = verified(transport.get_extra_info("ssl_object"))
        if self._verified is not None and self.ws_protocol_class is not None:
            made: Any = partial(_websocket, self.ws_protocol_class, self._extensions())
            self.ws_protocol_class = made

    def data_received(self, data: bytes) -> None:
        """Take bytes, unless a request begins with them and the caller's certificate has expired since."""
        cycle = self.cycle
        if self._verified is not None and (cycle is None or cycle.response_complete) and self._has_expired():
            self.transport.close()
            return
        self._fed = False
        HttpToolsProtocol.data_received(self, data)
        if self.cycle is cycle:
            self._await_more(len(data))
        elif self._barren:
            self._headed()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._headed()

    def on_message_begin(self) -> None:
        """Begin a request's scope."""
        super().on_message_begin()
        _date(self.server_state, self.loop.time())
        if self._verified is not None:
            self.scope["extensions"] = self._extensions()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._fed = True
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Begin the request that came meanwhile, unless the certificate has expired: a pipeline need never end."""
        if self.pipeline and self._has_expired():
            self.pipeline.clear()
            self.transport.close()
        HttpToolsProtocol.on_response_complete(self)

    def handle_websocket_upgrade(self) -> None:
        """Become a WebSocket; uvicorn does so whatever it still answers."""
        if self._has_expired():
            self.transport.close()
        else:
            self._headed()
            super().handle_websocket_upgrade()

    def _headed(self) -> None:
        self._barren = 0
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _await_more(self, size: int) -> None:
        """Bound what may follow a read that made no head whole; a request under way is bounded by who serves it."""
        if self.transport.is_closing() or self not in self.connections:  # refused, or a WebSocket now
            return
        self._barren = 0 if self._fed else self._barren + size
        if self._barren > HEAD:
            self._refuse()
        elif self._at_rest and self._barren and (self.cycle is None or self.cycle.scope is not self.scope):
            self._slow = self._slow or self.loop.call_later(HEAD_SECONDS, self.transport.close)
        elif self._at_rest:  # the rest of a body that was answered before its end, or empty lines
            self._keep()

    def _keep(self) -> None:
        if self.timeout_keep_alive_task is None:
            keep = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
            self.timeout_keep_alive_task = keep

    def _refuse(self) -> None:
        if self._at_rest:
            answer = Answer(431, f"a request's head may have {HEAD} bytes\n".encode())
            self.transport.write(answer.last_words)
        self.transport.close()

    def _has_expired(self) -> bool:
        if self._verified is None or not self._verified.expired:
            return False
        log.info("the certificate of %s has expired: its connection is closed, not served", self._verified.peer)
        return True

    @property
    def _at_rest(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _extensions(self) -> dict[Any, Any]:
        found = self._verified
        return {} if found is None else {"tls": found.tls, PEER: found.peer}


class _State(ServerState):
    """What the connections share."""

    dated = -1.0


def _date(state: Any, now: float) -> None:
    """RFC 9110, 6.6.1: a server with a clock tells the time of its answers; one second is as fine as it gets."""
    if now - state.dated >= 1.0:
        state.dated = now
        state.default_headers = [(b"date", formatdate(usegmt=True).encode())]


def _websocket(kind: Any, extensions: dict[Any, Any], **given: Any) -> Any:
    """A WebSocket protocol of uvicorn's whose scopes have the extensions, too."""
    made = kind(**given)
    app = made.app

    async def known(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "extensions": {**(scope.get("extensions") or {}), **extensions}}, receive, send)

    made.app = known
    return made


class Serving:
    """The connections of one application on one event loop.

    Args:
        app: an ASGI 3 application whose lifespan somebody else runs.
        state: what that lifespan left for requests.
    """

    def __init__(self, app: Any, state: dict[str, Any]) -> None:
        # No proxy headers: the address of a caller is that of its connection. No logging: the process has its own.
        self._config = uvicorn.Config(
            app,
            http=MeshProtocol,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(KEEP_ALIVE),
        )
        self._config.load()
        self._state = state
        self._server = _State()

    @property
    def idle(self) -> bool:
        """Whether there is neither a connection nor a request."""
        return not self._server.connections and not self._server.tasks

    def protocol(self) -> MeshProtocol:
        """For a new connection."""
        return MeshProtocol(self._config, self._server, self._state)

    def drain(self) -> None:
        """Close each connection as soon as it has answered what it was asked."""
        for connection in list(self._server.connections):
            connection.shutdown()

    def abort(self) -> None:
        """Break off whatever is left."""
        for connection in list(self._server.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()

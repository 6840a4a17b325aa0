"""HTTP/1.1 on the mesh's own port: uvicorn's protocol, which also knows who calls."""

from __future__ import annotations

import asyncio
import logging
from email.utils import formatdate
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from meshsdk.server.verified import PEER, Verified, verified

__all__ = ["MeshProtocol", "Serving"]

log = logging.getLogger("meshsdk.server")

KEEP_ALIVE = 75.0
"""Seconds an idle connection is kept, as nginx does: callers pool them, and each new one costs a handshake."""


class MeshProtocol(HttpToolsProtocol):
    """One connection, in TLS or in clear text."""

    _verified: Verified | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Read the caller's identity, once for all requests of the connection."""
        super().connection_made(transport)
        self._verified = verified(transport.get_extra_info("ssl_object"))
        if self._verified is not None and self.ws_protocol_class is not None:
            made: Any = partial(_websocket, self.ws_protocol_class, self._extensions())
            self.ws_protocol_class = made

    def data_received(self, data: bytes) -> None:
        """Take bytes, unless a request begins with them and the caller's certificate has expired since."""
        if self._at_rest and self._has_expired():
            self.transport.close()
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin a request's scope."""
        super().on_message_begin()
        _date(self.server_state, self.loop.time())
        if self._verified is not None:
            self.scope["extensions"] = self._extensions()

    def on_response_complete(self) -> None:
        """Begin the request that came meanwhile, unless the certificate has expired: a pipeline need never end."""
        if self.pipeline and self._has_expired():
            self.pipeline.clear()
            self.transport.close()
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        """Become a WebSocket; uvicorn does so whatever it still answers."""
        if self._has_expired():
            self.transport.close()
        else:
            super().handle_websocket_upgrade()

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

"""The ASGI adapter: a plain ASGI callable around the application (ASGI 3.0)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future
from typing import Any

from meshsdk.errors import AccessDenied
from meshsdk.identity.peer import asgi_peer
from meshsdk.identity.spiffe import SpiffeId
from meshsdk.server.answers import Answer, method_not_allowed, overdue
from meshsdk.server.beginning import Beginning
from meshsdk.server.entrance import Entrance
from meshsdk.server.forwarded import SPELLINGS, XFCC
from meshsdk.server.inbound import Intake, Page, ServedRequest
from meshsdk.server.lifecycle import Lifecycle
from meshsdk.server.prefix import without
from meshsdk.server.route import route_of
from meshsdk.server.verified import PEER
from meshsdk.telemetry.context import current

__all__ = ["ASGIApp", "DeadlineBroken", "MeshASGI"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class DeadlineBroken(Exception):
    """The caller's deadline passed in the middle of the reply: the connection is broken off, nobody waits for it."""


class MeshASGI:
    """An ASGI application with the mesh around it.

    Args:
        app: the application; anything that speaks ASGI 3.
        intake: where requests come in.
        lifecycle: the life of the process, told of the application's start and end; None leaves that out.
        entrance: told what to serve to the mesh's callers, and on which loop; None leaves that out.
        beginning: waited for before a request is judged; None waits for nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        intake: Intake,
        lifecycle: Lifecycle | None = None,
        entrance: Entrance | None = None,
        beginning: Beginning | None = None,
    ) -> None:
        self.app = app
        self._intake = intake
        self._lifecycle = lifecycle
        self._entrance = entrance
        self._beginning = beginning or Beginning("", 0.0)
        own = getattr(app, "root_path", "")  # FastAPI puts it in the place of the server's, which happens after us
        self._prefix = own if isinstance(own, str) else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one scope; kinds that are not known are the application's alone."""
        kind = scope["type"]
        if kind == "http":
            if self._entrance is not None and not self._entrance.hosted:
                self._entrance.host(self, {})  # under a server that runs no lifespan
            routed = self._routed(scope)
            page = self._intake.pages.get(routed or scope["path"])
            if page is not None:
                await self._own(page, scope, send)
                return
            if not self._beginning.over:
                await _begun(self._beginning)
            await self._serve(routed, scope, receive, send)
        elif kind == "websocket":
            await _begun(self._beginning)
            await self._websocket(scope, receive, send)
        elif kind == "lifespan" and self._lifecycle is not None:
            await self._lifespan(self._lifecycle, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _serve(self, routed: str, scope: Scope, receive: Receive, send: Send) -> None:
        request = self._admit(routed, scope)
        if request.refusal is not None:
            request.status = request.refusal.status
            await _reply(request.refusal, scope["method"], send)
            request.end()
            return
        reply = _Reply(request, scope, send, self._intake)
        token = current.set(request.inbound)
        try:
            if request.inbound.deadline is None or not _in_asyncio():
                await self.app(scope, receive, reply)
            else:
                await self._bounded(request, request.inbound.deadline, scope, receive, reply)
        except AccessDenied as error:
            if request.status is not None:
                reply.end(error)
                raise
            await _reply(Answer(403, f"access denied: {error}\n".encode()), scope["method"], reply)
        except BaseException as error:
            request.flag = request.flag or ("DC" if isinstance(error, asyncio.CancelledError) else "")
            reply.end(error)
            raise
        finally:
            current.reset(token)
        reply.end()

    async def _bounded(
        self, request: ServedRequest, deadline: float, scope: Scope, receive: Receive, reply: _Reply
    ) -> None:
        """Run the application until the deadline; the reply's last byte lifts it (rule 3 of inbound.py)."""
        bound = asyncio.timeout(deadline - self._intake.clock())
        reply.bound = bound
        try:
            async with bound:
                try:
                    await self.app(scope, receive, reply)
                finally:
                    reply.bound = None
        except Exception as error:
            # Frameworks may turn the cancellation into an exception of their own: what counts is that time was up.
            if not bound.expired() or (request.ended and not isinstance(error, TimeoutError)):
                raise
            if not request.ended:
                await self._overdue(request, scope, reply, error)

    async def _overdue(self, request: ServedRequest, scope: Scope, reply: _Reply, error: Exception) -> None:
        request.flag = "UT"
        timeout = request.timeout
        answer = overdue(timeout.seconds or 0.0, timeout.header) if timeout else overdue(0.0, "")
        if request.status is not None:
            raise DeadlineBroken(answer.body.decode().strip()) from error
        request.status = answer.status
        await _reply(answer, scope["method"], reply.raw)

    def _admit(self, routed: str, scope: Scope) -> ServedRequest:
        client, server = scope.get("client"), scope.get("server")
        headers = list(map(tuple, scope["headers"]))  # ASGI says pairs, which may be lists; compiled code takes tuples
        request = self._intake.admit(
            scope.get("method", "GET"),
            scope["path"],
            headers,
            scheme=scope.get("scheme", "http"),
            server=tuple(server) if server else None,
            client=client[0] if client else "",
            peer=_peer(scope),
            target=scope.get("raw_path"),
            routed=routed,
        )
        # Of its own, as uvicorn adds trailers to the list that it gave us: nobody has judged those. In place, as what
        # is around us may look for the route that a framework leaves in the scope.
        scope["headers"] = _shown(headers, request)
        return request

    def _routed(self, scope: Scope) -> str:
        prefix = self._prefix or scope.get("root_path")
        return without(prefix, scope["path"]) if prefix else ""

    async def _own(self, page: Page, scope: Scope, send: Send) -> None:
        self._intake.seen()
        if scope["method"] not in {"GET", "HEAD"}:
            answer = method_not_allowed(scope["method"])
        else:
            made = page()
            answer = await _wait(made) if isinstance(made, Future) else made
        await _reply(answer, scope["method"], send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counted and traced like a request of status 101; the deadline of an upgrade says nothing about the talk."""
        request = self._admit(self._routed(scope), scope)
        request.inbound.deadline = None
        if request.refusal is not None:
            request.status = 403  # ASGI: a close before the accept is an HTTP 403
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": request.refusal.body.decode().strip()})
            request.end()
            return
        token = current.set(request.inbound)
        app = scope.get("app")

        async def watched(message: Message) -> None:
            if message["type"] == "websocket.accept":
                request.status = 101
            elif message["type"] == "websocket.close" and request.status is None:
                request.status = 403
            await send(message)

        error: BaseException | None = None
        try:
            await self.app(scope, receive, watched)
        except BaseException as raised:
            error = raised
            raise
        finally:
            current.reset(token)
            request.route = route_of(scope, app)
            request.end(error)

    async def _lifespan(self, lifecycle: Lifecycle, scope: Scope, receive: Receive, send: Send) -> None:
        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                lifecycle.starting()
                self._beginning.begin()
            elif message["type"] == "lifespan.shutdown":
                # Before the application's own hooks: they may still call others, nobody shall call us.
                await _left(lifecycle)
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await _begun(self._beginning)
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self._host(scope)
                lifecycle.started()

        try:
            await self.app(scope, receiving, sending)
        except BaseException:
            self._host(scope)
            lifecycle.started()  # No lifespan in this application: servers go on without it, and so do we.
            raise

    def _host(self, scope: Scope) -> None:
        """The application as the server knows it: a framework's own object is around its middleware, and so around us.

        What somebody wrapped around that object is not on the mesh's port; `mesh.asgi` goes around everything.
        """
        if self._entrance is not None:
            self._entrance.host(scope.get("app") or self, scope.get("state") or {})


class _Reply:
    """The application's `send`: sees the status and the last byte."""

    __slots__ = ("_app", "_intake", "_request", "_scope", "_trailers", "bound", "raw")

    def __init__(self, request: ServedRequest, scope: Scope, send: Send, intake: Intake) -> None:
        self.raw = send
        self.bound: asyncio.Timeout | None = None
        self._request = request
        self._scope = scope
        self._app = scope.get("app")
        self._intake = intake
        self._trailers = False

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self._request.status = message["status"]
            self._trailers = message.get("trailers", False)
            if self._intake.closing():
                message = {**message, "headers": _closing(message.get("headers", ()))}
        await self.raw(message)
        if self._is_last(kind, message):
            self.end()

    def end(self, error: BaseException | None = None) -> None:
        """The reply is complete, or will never be."""
        if not self._request.ended:
            if self.bound is not None and not self.bound.expired():
                self.bound.reschedule(None)
            self._request.route = route_of(self._scope, self._app)
            self._request.end(error)

    def _is_last(self, kind: str, message: Message) -> bool:
        if kind == "http.response.body":
            return not message.get("more_body", False) and not self._trailers
        if kind == "http.response.trailers":
            return not message.get("more_trailers", False)
        return kind == "http.response.pathsend"


def _peer(scope: Scope) -> SpiffeId | None:
    extensions = scope.get("extensions")
    if not extensions:
        return None
    peer: SpiffeId | None = extensions.get(PEER) or asgi_peer(scope)
    return peer


def _shown(headers: list[Header], request: ServedRequest) -> list[Header]:
    """The headers as the application sees them (rule 1 of forwarded.py)."""
    if request.forged:
        headers = [pair for pair in headers if pair[0] not in SPELLINGS]
    return headers if request.certificate is None else [*headers, (XFCC, request.certificate)]


def _closing(headers: Any) -> list[tuple[bytes, bytes]]:
    """RFC 9112, 9.6: tell the client that this connection ends with this reply."""
    kept = [(name, value) for name, value in headers if name.lower() != b"connection"]
    return [*kept, (b"connection", b"close")]


def _in_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _wait(future: Future[Any]) -> Any:
    if _in_asyncio():
        return await asyncio.shield(asyncio.wrap_future(future))
    import anyio.to_thread

    return await anyio.to_thread.run_sync(future.result)


async def _begun(beginning: Beginning) -> None:
    if beginning.over:
        return
    if _in_asyncio():
        await beginning.await_over()
    else:
        import anyio.to_thread

        await anyio.to_thread.run_sync(beginning.wait)


async def _left(lifecycle: Lifecycle) -> None:
    if _in_asyncio():
        await lifecycle.aclose()
    else:
        import anyio.to_thread

        await anyio.to_thread.run_sync(lifecycle.close)


async def _reply(answer: Answer, method: str, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    body = b"" if method == "HEAD" else answer.body
    await send({"type": "http.response.body", "body": body})

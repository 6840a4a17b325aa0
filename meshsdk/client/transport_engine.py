"""An engine made of a transport that the user hands over, for what our own do not speak: HTTP/2, proxies.

Rule 1  The core decides, the transport carries: which instance, how long and whether again are the policy's. How many
        connections there are and how long they are kept is the transport's own (`limits=`).
Rule 2  A failure counts as written unless the library's exception says that nothing was (`transport_faults.py`).
Rule 3  Deadlines are exact by awaiting. Blocking, nobody can interrupt a transport: none of its waits is longer than
        what was left at the start of the head or of the body, and a body is stopped between its pieces.
Rule 4  Clear text only. The mesh's certificates change as it runs, and it checks each peer before a byte is sent; a
        transport has one context for all it calls, and asks nobody. What would be mutual TLS is refused, in words.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from types import ModuleType
from typing import Any, NoReturn

import anyio
import h11
import httpx

from meshsdk.client.rebase import rebased
from meshsdk.client.transport_faults import failure
from meshsdk.client.uploads import AsyncBytes, AsyncUpload, Upload
from meshsdk.core.model import Endpoint, Phase, TransportFailure
from meshsdk.errors import ConfigError
from meshsdk.wire.engine import Bounds, Headers, InvalidRequest, Request
from meshsdk.wire.failures import late, unconnected
from meshsdk.wire.retry_after import retry_after
from meshsdk.wire.security import PeerRejected, Secure

__all__ = ["AsyncTransportEngine", "AsyncTransportReply", "TransportEngine", "TransportReply"]

# A wait of the transport's that ends by itself says what it was for; so all of them together may take this much
# longer, in seconds, than any may alone.
_GRACE = 0.01


class _Sent:
    """One try under way.

    Attributes:
        request: the library's.
        faults: what the library's transports raise.
        waits: seconds by operation; httpx's transports look here as they begin each.
    """

    __slots__ = ("_clock", "_library", "bounds", "faults", "request", "waits")

    def __init__(
        self,
        library: Any,
        clock: Callable[[], float],
        request: httpx.Request,
        bounds: Bounds,
        waits: dict[str, float | None],
    ) -> None:
        self._library = library
        self._clock = clock
        self.request = request
        self.bounds = bounds
        self.waits = waits
        # h11's own is what httpx lets through where a body is not as long as its Content-Length says.
        self.faults: tuple[type[Exception], ...] = (library.TransportError, h11.LocalProtocolError)

    def left(self, deadline: float) -> float:
        """Seconds until then."""
        return deadline - self._clock()

    def read_body(self) -> None:
        """From here on the transport waits for the body."""
        bounds = self.bounds
        left = max(self.left(bounds.body_deadline), _GRACE)
        self.waits["read"] = _seconds(min(bounds.idle, bounds.read, left))

    def failed(self, error: Exception, phase: Phase) -> Exception:
        """What to raise for `error`; itself where it is not the wire's but the caller's, out of the request's body."""
        own: object = getattr(self.request.stream, "error", None)
        if own is error:
            return error
        if isinstance(error, (self._library.LocalProtocolError, h11.LocalProtocolError)):
            return InvalidRequest(str(error))
        return TransportFailure(failure(error, self._library, self.bounds, self._clock(), phase))

    def late(self, phase: Phase) -> TransportFailure:
        """Time is over."""
        in_body = phase == Phase.REPLY_STARTED
        deadline = self.bounds.body_deadline if in_body else self.bounds.deadline
        return TransportFailure(late(phase, in_body, self.left(deadline) <= 0))


class _Carrying:
    """What both colours of the engine have in common."""

    def __init__(
        self,
        transport: Any,
        library: Any,
        clock: Callable[[], float],
        secure: Secure | None,
        *,
        whole: Any,
        upload: Any,
    ) -> None:
        _check_http2(transport, library)
        self._transport = transport
        self._library = library
        self._clock = clock
        self._secure = secure
        self._whole = whole
        self._upload = upload

    def _begin(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> _Sent:
        """Raises TransportFailure where the instance must not be called, or cannot be."""
        self._check(endpoint, request.service)
        url = self._url(endpoint, request.target)
        left = bounds.deadline - self._clock()
        if left <= 0:
            raise TransportFailure(late(Phase.NOT_CONNECTED, in_body=False, overdue=True))
        limits = {"connect": bounds.connect, "read": bounds.read, "write": bounds.write, "pool": bounds.pool}
        waits = {name: _seconds(min(limit, left)) for name, limit in limits.items()}
        extensions = {**request.extensions, "timeout": waits}
        if url.raw_path == request.target:
            extensions.pop("target", None)
        else:
            extensions["target"] = request.target
        stream = self._whole if isinstance(request.body, bytes) else self._upload
        outgoing = self._library.Request(
            request.method, url, headers=request.headers, stream=stream(request.body), extensions=extensions
        )
        return _Sent(self._library, self._clock, outgoing, bounds, waits)

    def _url(self, endpoint: Endpoint, target: bytes) -> httpx.URL:
        if not 0 < endpoint.port < 65536:
            raise TransportFailure(unconnected(ValueError(f"{endpoint} is no address: ports are 1 to 65535")))
        path = target if target.startswith(b"/") else b"/"
        try:
            url: httpx.URL = self._library.URL(scheme="http", host=endpoint.address, port=endpoint.port, raw_path=path)
        except self._library.InvalidURL as error:
            raise TransportFailure(unconnected(ValueError(f"{endpoint} is no address: {error}"))) from error
        return url

    def _check(self, endpoint: Endpoint, service: str) -> None:
        """Rule 4."""
        if self._secure is None:
            return
        try:
            security = self._secure(endpoint, service)
        except (OSError, PeerRejected) as error:
            raise TransportFailure(unconnected(error)) from error
        if security is not None:
            refusal = PeerRejected(
                f"{service} at {endpoint} is called over mutual TLS, and a transport given as engine= carries clear "
                f'text only; write engine="meshsdk" or engine="httpcore", or, where clear text will do, set tls.mode '
                f"of {service} to off"
            )
            raise TransportFailure(unconnected(refusal)) from refusal


class _Head:
    """What both colours of a reply have in common: the head."""

    __slots__ = ("_response", "_sent")

    def __init__(self, response: httpx.Response, sent: _Sent) -> None:
        self._response = response
        self._sent = sent
        sent.read_body()

    @property
    def status(self) -> int:
        """The status code."""
        return self._response.status_code

    @property
    def headers(self) -> Headers:
        """The header fields in the order and case they came in; HTTP/2 has small letters only."""
        return self._response.headers.raw

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asks to wait; looked for where the status is an error."""
        return retry_after(self._response.headers.raw) if self._response.status_code >= 400 else None

    @property
    def extensions(self) -> dict[str, Any]:
        """What the transport says of the reply, such as `http_version`."""
        return dict(self._response.extensions)

    def whole(self) -> None:
        """Never known before it is read."""
        return


class TransportReply(_Head):
    """A reply whose body is read by iterating."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        stream: Any = self._response.stream
        sent = self._sent
        try:
            for piece in stream:
                if sent.left(sent.bounds.body_deadline) <= 0:
                    raise sent.late(Phase.REPLY_STARTED)
                yield piece
        except sent.faults as error:
            _raise(sent.failed(error, Phase.REPLY_STARTED), error)

    def close(self) -> None:
        """Let the transport have its connection back; it closes one whose body was not read to its end."""
        self._response.close()


class AsyncTransportReply(_Head):
    """The same by awaiting."""

    __slots__ = ()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        stream: Any = self._response.stream
        pieces, sent = aiter(stream), self._sent
        while True:
            try:
                piece = await self._next(pieces)
            except StopAsyncIteration:
                return
            except sent.faults as error:
                _raise(sent.failed(error, Phase.REPLY_STARTED), error)
            yield piece

    async def _next(self, pieces: AsyncIterator[bytes]) -> bytes:
        sent, bounds = self._sent, self._sent.bounds
        left = sent.left(bounds.body_deadline)
        if left > 0:
            with anyio.move_on_after(_seconds(min(left, bounds.idle) + _GRACE)):
                return await anext(pieces)
        raise sent.late(Phase.REPLY_STARTED)

    async def aclose(self) -> None:
        """Let the transport have its connection back; it closes one whose body was not read to its end."""
        await self._response.aclose()


class TransportEngine(_Carrying):
    """Sends through a transport, from any thread where that allows it, as httpx's does.

    Args:
        transport: one of `library`; closed with the client.
        library: httpx or httpx2.
        clock: seconds, monotonic; deadlines are on it.
        secure: how connections are to be secured; see rule 4.

    Raises:
        ConfigError: it would never speak the HTTP/2 it was made for.
    """

    def __init__(
        self, transport: httpx.BaseTransport, library: ModuleType, clock: Callable[[], float], secure: Secure | None
    ) -> None:
        upload = rebased(Upload, library)
        super().__init__(transport, library, clock, secure, whole=library.ByteStream, upload=upload)

    def send(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> TransportReply:
        """Send `request` and wait for the reply's head.

        Raises:
            TransportFailure: it failed; says how far it may have got.
            InvalidRequest: the transport would not send it.
        """
        sent = self._begin(endpoint, request, bounds)
        try:
            response = self._transport.handle_request(sent.request)
        except sent.faults as error:
            _raise(sent.failed(error, Phase.WRITTEN), error)
        return TransportReply(response, sent)

    def retire(self, gone: Collection[Endpoint], service: str = "") -> None:
        """Do nothing: a transport knows no instances, and closes what is idle after its own `keepalive_expiry`."""

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()


class AsyncTransportEngine(_Carrying):
    """The same by awaiting, in the one loop or trio run that the transport belongs to."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        library: ModuleType,
        clock: Callable[[], float],
        secure: Secure | None,
    ) -> None:
        whole, upload = rebased(AsyncBytes, library), rebased(AsyncUpload, library)
        super().__init__(transport, library, clock, secure, whole=whole, upload=upload)

    async def send(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> AsyncTransportReply:
        """Send `request` and wait for the reply's head; raises as `TransportEngine.send` does."""
        sent = self._begin(endpoint, request, bounds)
        try:
            with anyio.move_on_after(_seconds(sent.left(bounds.deadline) + _GRACE)):
                response = await self._transport.handle_async_request(sent.request)
                return AsyncTransportReply(response, sent)
        except sent.faults as error:
            _raise(sent.failed(error, Phase.WRITTEN), error)
        raise sent.late(Phase.WRITTEN)

    async def retire(self, gone: Collection[Endpoint], service: str = "") -> None:
        """Do nothing; as `TransportEngine.retire`."""

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()


def _raise(found: Exception, error: Exception) -> NoReturn:
    if found is error:
        raise error
    raise found from error


def _seconds(limit: float) -> float | None:
    return None if limit == math.inf else limit


def _check_http2(transport: Any, library: ModuleType) -> None:
    """Refuse what would quietly be HTTP/1.1. Only the library's own transports can be looked into, by what they keep
    private; of others, `response.http_version` says what was spoken.
    """
    pool = getattr(transport, "_pool", None)
    if not getattr(pool, "_http2", False):
        return
    kind = f"{library.__name__}.{type(transport).__name__}"
    if "HTTPProxy" in type(pool).__name__:
        raise ConfigError(
            f"engine={kind}(http2=True, proxy=...): calls between services are http:// URLs, which this transport "
            f"sends to an HTTP proxy as HTTP/1.1 only; write {kind}(proxy=...), or leave the proxy out"
        )
    if getattr(pool, "_http1", False):
        raise ConfigError(
            f"engine={kind}(http2=True): HTTP/2 is agreed on in a TLS handshake, and calls between services through "
            f"this engine have none, so it would speak HTTP/1.1; write {kind}(http1=False, http2=True), which begins "
            f"with HTTP/2 at once (RFC 9113, 3.3), for instances that all take it"
        )

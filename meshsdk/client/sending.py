"""Clients that send a request in few steps.

For each request httpx enters and leaves a context that would add the request to an error, binds the reply's stream to a
clock, and puts together a line for its log: half of what is left of its part of a call. All of that is the same here,
and costs little where there is nothing of it.

The attributes with an underscore are httpx's own, and httpx2's.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from time import perf_counter
from types import ModuleType
from typing import Any, ClassVar, Final

import httpx

from meshsdk.client.rebase import rebased
from meshsdk.client.response import AwaitingResponse, BlockingResponse

__all__ = ["AsyncClocked", "AwaitingSender", "BlockingSender", "Clocked", "Parts"]

_LINE: Final = 'HTTP Request: %s %s "%s %d %s"'


class _Clocked:
    """A reply's stream that tells the reply how long it took; httpx's own differs from version to version."""

    def __init__(self, response: httpx.Response, start: float) -> None:
        self._response = response
        self._stream: Any = response.stream
        self._start = start

    def _stop(self) -> None:
        self._response.elapsed = timedelta(seconds=perf_counter() - self._start)


class _BlockingClocked(_Clocked):
    """One that is read by blocking."""

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        """Let go of the connection."""
        self._stop()
        self._stream.close()


class _AwaitingClocked(_Clocked):
    """One that is read by awaiting."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            yield piece

    async def aclose(self) -> None:
        """Let go of the connection."""
        self._stop()
        await self._stream.aclose()


class Clocked(_BlockingClocked, httpx.SyncByteStream):
    """As httpx knows it."""


class AsyncClocked(_AwaitingClocked, httpx.AsyncByteStream):
    """The same for asyncio."""


class Parts:
    """What sending asks of a library, looked up once.

    Args:
        module: httpx or httpx2.
    """

    def __init__(self, module: ModuleType) -> None:
        self.log = logging.getLogger(module.__name__)
        self.failed: type[Exception] = module.RequestError
        self.blocking: type = module.SyncByteStream
        self.awaiting: type = module.AsyncByteStream
        self.clocked, self.aclocked = rebased(Clocked, module), rebased(AsyncClocked, module)


class _Sender:
    """What both colours have in common."""

    _parts: ClassVar[Parts]

    _transport_for_url: Callable[[httpx.URL], Any]
    _cookies: httpx.Cookies
    _default_encoding: str | Callable[[bytes], str]

    def _received(self, request: httpx.Request, response: Any) -> None:
        """The head of a reply is here."""
        response.request = request
        self._cookies.extract_cookies(response)
        response.default_encoding = self._default_encoding
        log = self._parts.log
        if log.isEnabledFor(logging.INFO):
            version, reason = response.http_version, response.reason_phrase
            log.info(_LINE, request.method, request.url, version, response.status_code, reason)


class BlockingSender(_Sender):
    """Sends by blocking."""

    def _send_single_request(self, request: httpx.Request) -> httpx.Response:
        transport = self._transport_for_url(request.url)
        parts = self._parts
        if not isinstance(request.stream, parts.blocking):
            return super()._send_single_request(request)  # type: ignore[misc,no-any-return] # which says so
        start = perf_counter()
        try:
            response: httpx.Response = transport.handle_request(request)
        except parts.failed as error:
            error.request = request  # type: ignore[attr-defined]
            raise
        if isinstance(response, BlockingResponse):
            response.started = start
        else:
            response.stream = parts.clocked(response, start)
        self._received(request, response)
        return response


class AwaitingSender(_Sender):
    """Sends by awaiting."""

    async def _send_single_request(self, request: httpx.Request) -> httpx.Response:
        transport = self._transport_for_url(request.url)
        parts = self._parts
        if not isinstance(request.stream, parts.awaiting):
            return await super()._send_single_request(request)  # type: ignore[misc,no-any-return] # which says so
        start = perf_counter()
        try:
            response: httpx.Response = await transport.handle_async_request(request)
        except parts.failed as error:
            error.request = request  # type: ignore[attr-defined]
            raise
        if isinstance(response, AwaitingResponse):
            response.started = start
        else:
            response.stream = parts.aclocked(response, start)
        self._received(request, response)
        return response

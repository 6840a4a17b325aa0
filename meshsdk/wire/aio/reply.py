"""A reply as its caller awaits it: first the head, then the body piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from meshsdk.core.model import Failure, TransportFailure
from meshsdk.wire.aio.connection import HIGH_WATER, Connection
from meshsdk.wire.aio.stream import DuplexStream, StreamInfo
from meshsdk.wire.reply import DISCARD_BYTES, BaseReply

__all__ = ["AsyncioReply"]

# Seconds that what is left of a body nobody wants has to come.
_DISCARD_SECONDS: Final = 1.0


class AsyncioReply(BaseReply):
    """One reply; iterate it once, for the body.

    Attributes:
        error: why nothing more will come.
    """

    __slots__ = ("_connection", "_discarded", "_duplex", "_upload", "_waiter", "error")

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection: Connection | None = connection
        self._info = StreamInfo(connection.transport)
        self._duplex: DuplexStream | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._upload: asyncio.Task[None] | None = None
        self.error: BaseException | None = None
        self._discarded = -1

    # --- for the engine -------------------------------------------------------------------------------

    @property
    def arrived(self) -> bool:
        """The head is here, and all of a short reply; but what is still to be sent may wait for the head."""
        connection = self._connection
        waits = connection is not None and not connection.uploading and connection.reader.short
        return self.status != 0 and not waits

    async def head(self) -> None:
        """Wait until it has arrived; raises what went wrong by the time the caller looks."""
        while not self.arrived and self.error is None:
            await self._something()
        if self.error is not None:
            raise self.error

    async def told_to_go_on(self, connection: Connection, seconds: float) -> None:
        """Wait for `100 Continue`, or any other reply, but not for ever: some servers never say it."""
        end = asyncio.get_running_loop().time() + seconds
        while not (self.status or self.error or connection.reader.continued):
            try:
                async with asyncio.timeout_at(end):
                    await asyncio.shield(self.news())
            except TimeoutError:
                return

    def carry(self, upload: asyncio.Task[None]) -> None:
        """The request's body is sent by `upload`, for as long as the reply is wanted."""
        self._upload = upload

    def broken(self, error: BaseException) -> None:
        """The request's own body raised: that is what the caller gets."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()
        if not self.complete:
            self.error = error
        self._wake()

    def broken_off(self, error: BaseException) -> None:
        """The upload was cancelled: from here, or by the request's own body."""
        if self._upload is not None and self._upload is _current_task():
            self.broken(error)

    def abandon(self) -> None:
        """The caller went away: close at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()
        self._stop_upload()

    # --- what the connection calls --------------------------------------------------------------------

    def progressed(self) -> None:
        """Something has come."""
        connection = self._connection
        if self.complete:
            if connection is None or not connection.carries(self):  # else the rest of the request is sent still
                if self.status != 101:
                    self._connection = None
                self._stop_upload()
        elif connection is not None and self.status:
            if self._discarded >= 0:
                self._discard()
            elif connection.reader.buffered >= HIGH_WATER:
                connection.hold()
            if self._upload is not None and self.status >= 300:
                self._stop_upload()  # RFC 9112, 9.3: the server has answered without the rest
        self._wake()

    def failed(self, failure: Failure) -> None:
        """Nothing more will come."""
        self._connection = None
        self.error = TransportFailure(failure)
        self._stop_upload()
        self._wake()

    # --- for the caller -------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self.pieces:
            if self.complete:
                await self._request_sent()
                raise StopAsyncIteration
            if self.error is not None:
                raise self.error
            if self._connection is None:
                raise StopAsyncIteration  # it was closed
            await self._something()
        piece = self.take()
        if self._connection is not None:
            self._connection.taken(len(piece))
        return piece

    async def aclose(self) -> None:
        """Let go of the connection. What little is left of the body is read first, so that it can be used again."""
        if self._duplex is not None:
            await self._duplex.aclose()
        connection = self._connection
        self.pieces.clear()
        if connection is None or self._discarded >= 0:
            return
        if self.status == 101 or self._upload is not None or not self._nearly_done(connection):
            self.abandon()
            return
        self._discarded = connection.reader.buffered
        connection.finish_within(_DISCARD_SECONDS)
        connection.resume()

    async def _request_sent(self) -> None:
        """A reply that came before the request's end is over with it, as callers expect of what they asked to send."""
        while self._connection is not None and self._connection.carries(self):
            await self._something()

    def _nearly_done(self, connection: Connection) -> bool:
        return connection.reader.left() <= DISCARD_BYTES

    def _discard(self) -> None:
        self._discarded += sum(map(len, self.pieces))
        self.pieces.clear()
        if self._discarded > DISCARD_BYTES:
            self.abandon()

    def _upgraded(self) -> DuplexStream | StreamInfo:
        connection = self._connection
        if self._duplex is None and connection is not None:
            self._connection = None
            self._duplex = DuplexStream.take_over(connection, self.surplus)
        return self._duplex or self._info

    def _stop_upload(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None and upload is not _current_task():
            upload.cancel()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def news(self) -> asyncio.Future[None]:
        """Done when something has come, or nothing will."""
        if self._waiter is None:
            self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    async def _something(self) -> None:
        try:
            await self.news()
        except asyncio.CancelledError:
            self.abandon()
            raise


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None

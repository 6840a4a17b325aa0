"""Bodies of replies: each ends its attempt exactly once, however the caller lets go of it.

Rule 1  Read to the end, or closed early: finished. The head was good, and reading half of a body is the caller's right.
Rule 2  Broken on the way: finished with the failure, and the caller gets the error while iterating.
Rule 3  Cancelled, or interrupted while waiting for a piece: abandoned, nobody is blamed.
Rule 4  Never closed and forgotten: abandoned, with a ResourceWarning. The garbage collector runs anywhere, also inside
        the locks that abandoning takes; so the body is only put aside then, and abandoned at the next safe moment.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, ClassVar

import httpx

from meshsdk.client.errors import Errors, errors_of
from meshsdk.core.model import Failure, TransportFailure
from meshsdk.errors import CallError

if TYPE_CHECKING:
    from meshsdk.core.attempt import Attempt
    from meshsdk.core.exchange import Exchange
    from meshsdk.runs import Run
    from meshsdk.telemetry.tracing import CallSpan
    from meshsdk.wire.engine import AsyncReply, Reply

__all__ = ["AsyncBody", "AwaitingBody", "BlockingBody", "Body", "Ending", "abandon_forgotten", "forgotten"]

forgotten: deque[Ending] = deque()  # append and popleft are atomic and take no lock
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forgotten.clear)  # the parent abandons them itself


def abandon_forgotten() -> None:
    """Abandon what the garbage collector found; every call begins with this."""
    while forgotten:
        forgotten.popleft().let_go()


class Ending:
    """The end of one call whose reply's head has come. (The two colours fill it in: a call of `super` is a µs.)"""

    _errors: ClassVar[Errors]
    _request: httpx.Request
    _exchange: Exchange
    _attempt: Attempt
    _span: CallSpan
    _status: int
    _open: bool

    def finish(self) -> None:
        """The caller has what it wanted."""
        if self._open:
            self._open = False
            self._exchange.finished(self._attempt)
            self._span.end(self._status, None, self._attempt.number)

    def broken(self, failure: Failure) -> CallError:
        """The body broke; the error to raise."""
        settle, self._open = self._open, False
        if settle:
            self._exchange.finished(self._attempt, failure)
        error = self._errors.matching(self._exchange.error(failure), self._request, failure)
        if settle:
            self._span.end(self._status, error, self._attempt.number)
        return error

    def abandon(self, error: BaseException | None = None) -> None:
        """The caller went away."""
        if self._open:
            self._open = False
            self._exchange.abandon(self._attempt)
            self._span.end(self._status, error, self._attempt.number)

    def let_go(self) -> None:
        """Abandon what was forgotten, and its connection where that can be reached from here."""
        self.abandon(GeneratorExit())

    def _warn(self) -> None:
        what = f"{self._request.method} {self._request.url}"
        warnings.warn(
            f"the reply to {what} was never closed; use `with client.stream(...)` or response.close()",
            ResourceWarning,
            stacklevel=3,
            source=self,
        )


class BlockingBody(Ending):
    """A reply's body, read by iterating."""

    def __init__(
        self, reply: Reply, request: httpx.Request, exchange: Exchange, attempt: Attempt, span: CallSpan
    ) -> None:
        self._reply = reply
        self._request = request
        self._exchange = exchange
        self._attempt = attempt
        self._span = span
        self._status = reply.status
        self._open = True

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._reply
        except TransportFailure as error:
            self._reply.close()
            raise self.broken(error.failure) from error.failure.cause
        except GeneratorExit:
            raise  # the caller stopped iterating; it may still close in its own time
        except BaseException as error:
            self._reply.close()
            self.abandon(error)
            raise
        self.close()

    def close(self) -> None:
        """Let go of the connection and end the attempt."""
        if self._open:
            try:
                self._reply.close()
            finally:
                self.finish()

    def let_go(self) -> None:
        """Abandon and close."""
        super().let_go()
        self._reply.close()

    def __del__(self) -> None:
        if self._open:
            forgotten.append(self)
            self._warn()


class Body(BlockingBody, httpx.SyncByteStream):
    """A reply's body as httpx reads it."""

    _errors = errors_of(httpx)


class AwaitingBody(Ending):
    """The same for asyncio, and for trio where the engine runs on it."""

    def __init__(
        self,
        reply: AsyncReply,
        request: httpx.Request,
        exchange: Exchange,
        attempt: Attempt,
        span: CallSpan,
        *,
        loop: Run,
    ) -> None:
        self._reply = reply
        self._request = request
        self._exchange = exchange
        self._attempt = attempt
        self._span = span
        self._status = reply.status
        self._open = True
        self._loop = loop

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._reply:
                yield piece
        except TransportFailure as error:
            failed = self.broken(error.failure)
            await self._reply.aclose()
            raise failed from error.failure.cause
        except GeneratorExit:
            raise  # as above
        except BaseException as error:
            self.abandon(error)
            await self._reply.aclose()
            raise
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the connection and end the attempt."""
        if self._open:
            self.finish()
            await self._reply.aclose()

    def let_go(self) -> None:
        """Abandon and close; a connection of a loop that is closed went with it."""
        super().let_go()
        if not self._loop.is_closed() and (task := self._loop.create_task(self._reply.aclose())) is not None:
            _closing.add(task)
            task.add_done_callback(_closing.discard)

    def __del__(self) -> None:
        if not self._open:
            return
        try:
            self._loop.call_soon_threadsafe(self.let_go)
        except RuntimeError:  # the loop is closed
            forgotten.append(self)
        self._warn()


class AsyncBody(AwaitingBody, httpx.AsyncByteStream):
    """A reply's body as httpx reads it by awaiting."""

    _errors = errors_of(httpx)


_closing: set[asyncio.Task[None]] = set()  # asyncio keeps only weak references to tasks, trio keeps its own

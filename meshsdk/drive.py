"""Carry a call out: begin, send, report, pause, and again; once blocking and once awaiting.

The exchange decides; these two loops only do. Whatever interrupts them (cancellation, Ctrl-C, an error that is no fault
of the wire) is reported before it passes, so that no slot is left behind. `send` raises `TransportFailure` for what
went wrong on the wire, and anything else for what did not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from meshsdk.core.attempt import Attempt, Final
from meshsdk.core.exchange import Exchange
from meshsdk.core.model import TransportFailure
from meshsdk.runs import pause

__all__ = ["AsyncReply", "Reply", "TransportFailure", "adrive", "drive"]


class _Head(Protocol):
    """What is known of a reply when its head is there."""

    @property
    def status(self) -> int: ...

    @property
    def retry_after(self) -> float | None:
        """Seconds its Retry-After asks to wait; None without one."""
        ...


class Reply(_Head, Protocol):
    """A reply that may be closed unread."""

    def close(self) -> None:
        """Let go of the connection."""
        ...


class AsyncReply(_Head, Protocol):
    """A reply that may be closed unread."""

    async def aclose(self) -> None:
        """Let go of the connection."""
        ...


R = TypeVar("R", bound=Reply)
AR = TypeVar("AR", bound=AsyncReply)


def drive(exchange: Exchange, send: Callable[[Attempt], R], sleep: Callable[[float], object]) -> tuple[R, Attempt]:
    """Carry `exchange` out and return the reply with the attempt it came from.

    The caller ends the attempt: `exchange.finished(attempt)` at the body's end, or `exchange.abandon(attempt)`.

    Args:
        send: makes one try; returns when the reply's head is there.
        sleep: waits so many seconds.

    Raises:
        CallError: there was no try to be made, or the last one failed.
    """
    while True:
        attempt = exchange.begin()
        reply: R | None = None
        try:
            reply = send(attempt)
        except TransportFailure as error:
            verdict = exchange.failed(attempt, error.failure)
            if isinstance(verdict, Final):
                raise exchange.error(error.failure) from error.failure.cause
        except BaseException:
            exchange.abandon(attempt)
            raise
        else:
            try:
                verdict = exchange.answered(attempt, reply.status, reply.retry_after)
            except BaseException:  # a user's strategy raised, and nobody else closes the reply
                reply.close()
                raise
            if isinstance(verdict, Final):
                return reply, attempt
        try:
            if reply is not None:
                reply.close()
            sleep(verdict.after)
        except BaseException:
            exchange.give_up()
            raise


async def adrive(
    exchange: Exchange,
    send: Callable[[Attempt], Awaitable[AR]],
    sleep: Callable[[float], Awaitable[object]] = pause,
) -> tuple[AR, Attempt]:
    """The same, awaiting `send`, `sleep` and the closing of replies; on asyncio or trio."""
    while True:
        attempt = exchange.begin()
        reply: AR | None = None
        try:
            reply = await send(attempt)
        except TransportFailure as error:
            verdict = exchange.failed(attempt, error.failure)
            if isinstance(verdict, Final):
                raise exchange.error(error.failure) from error.failure.cause
        except BaseException:
            exchange.abandon(attempt)
            raise
        else:
            try:
                verdict = exchange.answered(attempt, reply.status, reply.retry_after)
            except BaseException:
                await reply.aclose()
                raise
            if isinstance(verdict, Final):
                return reply, attempt
        try:
            if reply is not None:
                await reply.aclose()
            await sleep(verdict.after)
        except BaseException:
            exchange.give_up()
            raise

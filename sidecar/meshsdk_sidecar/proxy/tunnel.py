"""Bytes between two connections, both ways, until both directions have ended: upgrades, CONNECT and TCP.

Rule 1  What one end sends is written to the other as it comes. While the other does not take it, no more is read: a
        direction holds `HIGH_WATER` bytes and what one read brings.
Rule 2  That an end will send no more is told to the other, and the opposite direction goes on (RFC 9293, 3.6; under
        TLS RFC 8446, 6.1).
Rule 3  What broke is not made to look as if it had ended: the other end is reset, once it has what was sent before.
        A protocol that ends its messages by closing could not tell them from whole ones.
Rule 4  `ended` is called exactly once: when both connections are closed, or by `abort` before it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from meshsdk.wire.aio.watch import Watch

__all__ = ["ABORTED", "ENDED", "IDLE", "LEFT_LOST", "RIGHT_LOST", "STUCK", "Tunnel", "TunnelEnd", "reset"]

# Bytes that wait in a transport before the other end is read no more. One read brings 256 KiB at most, in both loops.
HIGH_WATER = 64 * 1024

# Seconds without progress in which an end may take the last of what was sent to it.
GOODBYE = 10.0

ENDED = "ended"
"""Why a tunnel ended: both directions did."""
LEFT_LOST = "left-lost"
"""The left connection broke."""
RIGHT_LOST = "right-lost"
"""The right connection broke."""
IDLE = "idle"
"""Nothing came for as long as is allowed."""
STUCK = "stuck"
"""One end did not take the last of what was sent to it."""
ABORTED = "aborted"
"""Somebody called `abort`."""

_AT_ONCE = struct.pack("ii", 1, 0)  # struct linger: close by reset


@dataclass(slots=True)
class TunnelEnd:
    """What came of a tunnel.

    Attributes:
        to_left, to_right: bytes that were read from the opposite end.
        seconds: from `join`.
        why: one of ENDED, LEFT_LOST, RIGHT_LOST, IDLE, STUCK, ABORTED.
        error: what broke the connection, where one did.
    """

    to_left: int
    to_right: int
    seconds: float
    why: str
    error: BaseException | None = None


class _End(asyncio.Protocol):
    """One of the two connections.

    Attributes:
        received: bytes that came.
        done: it will send no more.
        lost: it is closed.
        stuck: it has enough to take.
        doomed: it is reset as soon as it has taken what waits.
    """

    __slots__ = ("_tunnel", "done", "doomed", "lost", "other", "received", "stuck", "transport")

    other: _End

    def __init__(self, tunnel: Tunnel, transport: asyncio.Transport) -> None:
        self._tunnel = tunnel
        self.transport = transport
        self.received = 0
        self.done = self.lost = self.stuck = self.doomed = False

    @property
    def open(self) -> bool:
        return not (self.lost or self.transport.is_closing())

    def take_over(self) -> None:
        transport = self.transport
        if transport.is_closing():
            return
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self.stuck = transport.get_write_buffer_size() > HIGH_WATER  # whoever was there before may have been told

    def send(self, data: bytes) -> None:
        if data and self.open:
            self.transport.write(data)

    def follow(self) -> None:
        """Read, or not, as the other end can take it."""
        if not self.open:
            return
        if self.other.stuck or self.doomed:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def finish(self) -> None:
        """Nothing more will be sent to it."""
        if self.open:
            with contextlib.suppress(OSError):  # asyncio's, where it was reset: that is read next
                self.transport.write_eof()

    def close(self) -> None:
        """Close it once it has taken what waits."""
        if self.open:
            self.transport.close()

    def doom(self) -> None:
        """Reset it once it has taken what waits."""
        if self.lost or self.doomed:
            return
        if self.transport.is_closing() or not self.transport.get_write_buffer_size():
            reset(self.transport)
            return
        self.doomed = True
        self.follow()
        self.transport.set_write_buffer_limits(high=0)  # `resume_writing` tells when nothing waits

    # --- what asyncio calls ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._tunnel.heard()
        if self.other.open:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self.done = True
        self._tunnel.finished(self)
        return True

    def pause_writing(self) -> None:
        self.stuck = True
        self._tunnel.holds()
        self.other.follow()

    def resume_writing(self) -> None:
        self.stuck = False
        if self.doomed:
            reset(self.transport)
        else:
            self.other.follow()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost:
            self.lost = True
            self._tunnel.lost(self, exc)


class Tunnel:
    """Two connections, made one. Both transports are its own from `join` on."""

    __slots__ = (
        "_began",
        "_clock",
        "_closing",
        "_ended",
        "_error",
        "_heard",
        "_idle",
        "_left",
        "_right",
        "_unsent",
        "_watch",
        "_why",
    )

    def __init__(
        self,
        left: asyncio.Transport,
        right: asyncio.Transport,
        *,
        ended: Callable[[TunnelEnd], None],
        idle: float,
        watch: Watch,
        clock: Callable[[], float],
    ) -> None:
        self._left = _End(self, left)
        self._right = _End(self, right)
        self._left.other, self._right.other = self._right, self._left
        self._ended: Callable[[TunnelEnd], None] | None = ended
        self._idle = idle
        self._watch = watch
        self._clock = clock
        self._began = self._heard = clock()
        self._closing = inf  # since when only what waits is sent
        self._unsent = 0
        self._why = ""
        self._error: BaseException | None = None

    @classmethod
    def join(
        cls,
        left: asyncio.Transport,
        right: asyncio.Transport,
        *,
        ended: Callable[[TunnelEnd], None],
        watch: Watch,
        clock: Callable[[], float],
        idle: float = inf,
        to_left: bytes = b"",
        to_right: bytes = b"",
        left_done: bool = False,
        right_done: bool = False,
    ) -> Tunnel:
        """Take two connections over, whose bytes are each other's from now on.

        Args:
            ended: told once, when it is over; never before this returns.
            watch: rings when a bound is over.
            clock: the watch's.
            idle: seconds in which nothing comes from either, after which both are reset; inf is no bound.
            to_left, to_right: what came of the opposite end already and is to be sent first.
            left_done, right_done: it was heard already that this one will send no more.
        """
        tunnel = cls(left, right, ended=ended, idle=idle, watch=watch, clock=clock)
        tunnel._begin(to_left, to_right, left_done=left_done, right_done=right_done)
        return tunnel

    @property
    def to_left(self) -> int:
        """Bytes from right to left so far."""
        return self._right.received

    @property
    def to_right(self) -> int:
        """Bytes from left to right so far."""
        return self._left.received

    def abort(self) -> None:
        """Break both connections off; nothing waits for what was not sent yet."""
        self._break(ABORTED)

    # --- told by the ends -----------------------------------------------------------------------------

    def heard(self) -> None:
        """Something came."""
        self._heard = self._clock()

    def holds(self) -> None:
        """An end has enough to take; that it takes some is a sign of life."""
        self._unsent = self._waiting()

    def finished(self, end: _End) -> None:
        """An end will send no more."""
        self._heard = self._clock()
        if end.other.done:
            self._close()
        else:
            end.other.finish()

    def lost(self, end: _End, error: Exception | None) -> None:
        """An end is closed."""
        if error is not None and not self._why:
            ordinary = end.done  # what it was still sent came too late, and it said so
            self._why = ENDED if ordinary else LEFT_LOST if end is self._left else RIGHT_LOST
            self._error = error
        if end.other.lost:
            self._settle()
        elif error is not None and self._closing == inf:
            end.other.doom()
            self._close_within()
        else:
            self._close()

    # --- time -----------------------------------------------------------------------------------------

    def due(self) -> float:
        """When something must have come, or been taken."""
        if self._closing < inf:
            return self._closing + GOODBYE
        return self._heard + self._idle

    def overdue(self, now: float) -> None:
        """It has not."""
        before, self._unsent = self._unsent, self._waiting()
        if self._unsent < before:  # someone reads, slowly
            self._heard = now
            self._closing = now if self._closing < inf else inf
            self._watch.add(self, self.due())
        elif self._closing < inf:
            self._break(STUCK)
        else:
            self._break(IDLE)

    # --- ends -----------------------------------------------------------------------------------------

    def _begin(self, to_left: bytes, to_right: bytes, *, left_done: bool, right_done: bool) -> None:
        left, right = self._left, self._right
        left.received, right.received = len(to_right), len(to_left)
        left.take_over()
        right.take_over()
        left.send(to_left)
        right.send(to_right)
        self._watch.add(self, self.due())
        if left.transport.is_closing() or right.transport.is_closing():
            asyncio.get_running_loop().call_soon(self._begun_closed)
            return
        left.follow()
        right.follow()
        for end, done in ((left, left_done), (right, right_done)):
            if done:
                end.eof_received()

    def _begun_closed(self) -> None:
        """One was closing before it was taken over; whom it tells of its end may be somebody else."""
        for end in (self._left, self._right):
            if end.transport.is_closing():
                end.connection_lost(None)

    def _close(self) -> None:
        self._left.close()
        self._right.close()
        self._close_within()

    def _close_within(self) -> None:
        if self._ended is not None and self._closing == inf:
            self._closing = self._clock()
            self._unsent = self._waiting()
            self._watch.sooner(self.due())

    def _waiting(self) -> int:
        return sum(end.transport.get_write_buffer_size() for end in (self._left, self._right) if not end.lost)

    def _break(self, why: str) -> None:
        self._why = self._why or why
        for end in (self._left, self._right):
            if not end.lost:
                reset(end.transport)
        self._settle()

    def _settle(self) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        self._watch.discard(self)
        seconds = self._clock() - self._began
        ended(TunnelEnd(self.to_left, self.to_right, seconds, self._why or ENDED, self._error))


def reset(transport: asyncio.Transport) -> None:
    """Close a connection so that its peer learns that it broke; over a Unix socket there is no such thing."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # it is closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()

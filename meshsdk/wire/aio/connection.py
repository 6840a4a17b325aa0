"""One connection: carries one request at a time, by callbacks only.

Rule 1  A connection has a receiver from `start` until the reply's last byte, or until it failed, or was abandoned. What
        comes while it has none ends the connection: nobody asked for it.
Rule 2  The receiver hears `progressed` after every piece that came, and exactly one `failed` instead of an end.
Rule 3  Once the last byte is here the connection is free again, whenever the receiver reads what it was given. Where a
        reply below 300 was complete before its request, the rest is sent first; behind any other it is dropped.
Rule 4  Whose fault an end is: see `wire.sockets.unread_by_peer` for what a closed connection proves.
Rule 5  Under TLS the first request is not written while something is here to be read. It may be that our certificate
        is refused (`wire.failures.refused`), and whoever writes to a peer that has closed hears of a reset only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from meshsdk.core.model import Failure, Phase
from meshsdk.wire.aio.ends import Owner
from meshsdk.wire.aio.gathered import gathered
from meshsdk.wire.engine import Bounds
from meshsdk.wire.failures import breach, closed, late, lost, refused, stuck
from meshsdk.wire.http1 import Limits, ProtocolError, ResponseReader
from meshsdk.wire.receiver import Receiver
from meshsdk.wire.sockets import prompt, quiet, read_last, unread_by_peer

if TYPE_CHECKING:
    from meshsdk.wire.aio.watch import Watch

__all__ = ["Connection", "Owner"]

# Bytes of a body that wait for their reader before the server is made to wait: two reads of asyncio and uvloop, as to
# stop and to go on are a system call each. Reading goes on when half is left.
HIGH_WATER: Final = 512 * 1024
LOW_WATER: Final = HIGH_WATER // 2

# A connection that was used a moment ago was seen open by the loop; one that was idle for longer is looked at.
_SURE_FOR: Final = 0.01


class Connection(asyncio.Protocol):
    """One connection to one endpoint.

    Args:
        owner: told when it is free and when it is gone.
        watch: rings when a bound is over.
        clock: the watch's.
        limits: on what replies may be.

    Attributes:
        idle_since: when it became free.
        opened: when it was opened.
        uploading: the request's body is still being sent.
        last: the request at hand said that no other will follow.
        stuck: what was written lies here, because the peer does not read.
        ended: why it was lost before it carried anything.
    """

    __slots__ = (
        "_bounds",
        "_clock",
        "_gone",
        "_heard_at",
        "_held",
        "_owner",
        "_paused",
        "_phase",
        "_receiver",
        "_sent",
        "_sent_before",
        "_stuck_bytes",
        "_stuck_since",
        "_unstuck",
        "_watch",
        "ended",
        "idle_since",
        "last",
        "opened",
        "reader",
        "stuck",
        "transport",
        "uploading",
    )

    transport: asyncio.Transport

    def __init__(self, owner: Owner, watch: Watch, clock: Callable[[], float], limits: Limits) -> None:
        self.reader = ResponseReader(limits)
        self.opened = self.idle_since = self._heard_at = clock()
        self.uploading = False
        self.last = False
        self.stuck = False
        self.ended: Failure | None = None
        self._owner = owner
        self._watch = watch
        self._clock = clock
        self._receiver: Receiver | None = None
        self._bounds = Bounds()
        self._phase = Phase.NOT_WRITTEN
        self._gone = False
        self._held = b""
        self._paused = False
        self._sent = 0
        self._sent_before = 0
        self._stuck_since = 0.0
        self._stuck_bytes = 0
        self._unstuck: asyncio.Future[None] | None = None

    # --- for the pool and the engine ------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Neither end has closed, as far as is known."""
        return not self._gone and not self.transport.is_closing()

    @property
    def startable(self) -> bool:
        """A request may be given to it. Where a new connection is just ending, that request's receiver hears why."""
        return self.alive or not (self._sent or self._gone)

    def carries(self, receiver: Receiver) -> bool:
        """Whether the exchange that `receiver` waits for is still under way."""
        return self._receiver is receiver

    def usable(self, now: float) -> bool:
        """Whether an idle connection may carry another request, as far as can be seen from here."""
        if not self.alive:
            return False
        return now - self.idle_since < _SURE_FOR or quiet(self.transport.get_extra_info("socket"))

    def start(self, receiver: Receiver, method: str, data: bytes, bounds: Bounds, uploading: bool = False) -> None:
        """Send a request, or its beginning.

        Args:
            data: the head, and the body where it is known.
            uploading: the rest follows by `write`; set `uploading` to False after it.
        """
        self._receiver = receiver
        self._bounds = bounds
        self.uploading = uploading
        self._sent_before = sent = self._sent
        self._sent = sent + len(data)
        self.reader.expect(method, receiver)
        due = bounds.deadline
        if bounds.read < inf or bounds.write < inf:
            self._heard_at = self._clock()
            due = min(due, self._heard_at + bounds.read)
        self._watch.add(self, due)
        if not sent and self._in_doubt():
            self._phase = Phase.NOT_WRITTEN
            self._held = data
            asyncio.get_running_loop().call_soon(self._write_held, receiver)
            return
        self._phase = Phase.WRITTEN
        self.transport.write(data)

    def write(self, data: bytes) -> None:
        """Send more of the request's body."""
        self._sent += len(data)
        if self._held:
            self._held += data
        else:
            self.transport.write(data)

    def _in_doubt(self) -> bool:
        """It is ending, or may be: under TLS something has come; mostly the tickets of a server that takes us."""
        transport = self.transport
        if transport.is_closing():
            return True
        return transport.get_extra_info("ssl_object") is not None and not quiet(transport.get_extra_info("socket"))

    def _write_held(self, receiver: Receiver) -> None:
        held, self._held = self._held, b""
        if self._receiver is receiver and self.alive:
            self._phase = Phase.WRITTEN
            self.transport.write(held)

    async def unstuck(self) -> None:
        """Wait until the peer has read enough of what was written, or the connection is gone."""
        while self.stuck and not self._gone:
            if self._unstuck is None:
                self._unstuck = asyncio.get_running_loop().create_future()
            await self._unstuck

    def abandon(self) -> None:
        """The caller went away; nobody is told."""
        self._receiver = None
        self._watch.discard(self)
        self.abort()

    def abort(self) -> None:
        """Close at once, without waiting for what was not sent yet."""
        self.transport.abort()
        self._leave()

    def close(self) -> None:
        """Close an idle connection."""
        self.transport.close()
        self._leave()

    def uploaded(self) -> None:
        """The request's last byte was written; from now on the reply is waited for."""
        self.uploading = False
        receiver = self._receiver
        if receiver is not None and receiver.complete:
            self._finish(receiver)  # which came before the request's end
            return
        self._heard_at = self._clock()
        self._watch.sooner(self.due())

    def shut(self) -> None:
        """The engine closes, whatever this carries."""
        self._fail(closed(self._phase))

    def finish_within(self, seconds: float) -> None:
        """The rest of the reply is of no interest: it has so many seconds to come."""
        self._bounds = Bounds(body_deadline=min(self._bounds.body_deadline, self._clock() + seconds))
        self._watch.sooner(self._bounds.body_deadline)

    # --- back-pressure --------------------------------------------------------------------------------

    def hold(self) -> None:
        """Read no more until `resume`: the receiver has enough to do."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def taken(self, size: int) -> None:
        """The receiver's reader took so many bytes."""
        reader = self.reader
        reader.buffered -= size
        if self._paused and reader.buffered <= LOW_WATER:
            self.resume()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            self._heard_at = self._clock()
            if not self._gone:
                self.transport.resume_reading()
                self._watch.sooner(self.due())

    def pause_writing(self) -> None:
        """Asyncio: what was written is too much for now."""
        self.stuck = True
        self._stuck_since = self._clock()
        self._stuck_bytes = self.transport.get_write_buffer_size()
        self._watch.sooner(self.due())

    def resume_writing(self) -> None:
        """Asyncio: write on."""
        if self.stuck:
            self.stuck = False
            self._heard_at = self._clock()
            self._watch.sooner(self.due())
        waiting, self._unstuck = self._unstuck, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        receiver = self._receiver
        if receiver is not None and not self._gone:
            receiver.writable()

    # --- time -----------------------------------------------------------------------------------------

    def due(self) -> float:
        """When what is being waited for must have come."""
        bounds, receiver = self._bounds, self._receiver
        if receiver is None:
            return inf
        due = bounds.body_deadline if receiver.status else bounds.deadline
        if self.stuck:
            due = min(due, self._stuck_since + bounds.write)
        if receiver.status:
            waits = self._paused or receiver.complete
            return due if waits else min(due, self._heard_at + min(bounds.idle, bounds.read))
        return due if self.uploading or self.stuck else min(due, self._heard_at + bounds.read)

    def overdue(self, now: float) -> None:
        """It has not come."""
        receiver = self._receiver
        if receiver is None:
            return
        in_body = receiver.status != 0
        limit = self._bounds.body_deadline if in_body else self._bounds.deadline
        if limit > now and self._moves(now):
            self._watch.add(self, self.due())
        else:
            stuck_ = self.stuck and not in_body and limit > now
            self._fail(stuck(self._phase) if stuck_ else late(self._phase, in_body, limit <= now))

    def _moves(self, now: float) -> bool:
        """Whether the peer has read some of what lies here since this was last asked: one write is one piece."""
        if not self.stuck:
            return False
        before, self._stuck_bytes = self._stuck_bytes, self.transport.get_write_buffer_size()
        if self._stuck_bytes >= before:
            return False
        self._stuck_since = now
        return self.due() > now

    # --- what asyncio calls ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self.transport = gathered(transport)
        prompt(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        receiver = self._receiver
        if receiver is None:
            self.abort()
            return
        self._phase = Phase.REPLY_STARTED
        headless = not receiver.status
        try:
            self.reader.feed(data)
        except ProtocolError as error:
            self._fail(breach(self._phase, error))
            return
        if receiver.complete and not (self.uploading and self.reader.reusable and receiver.status < 300):
            self._finish(receiver)
            return
        self._heard_at = self._clock()
        if headless and receiver.status:
            self._watch.sooner(self.due())
        receiver.progressed()

    def eof_received(self) -> None:
        """The server has closed its side; asyncio closes ours."""
        receiver = self._receiver
        if receiver is None:
            self._leave()
        elif self.reader.ended():
            self._finish(receiver)
        else:
            if self._phase == Phase.WRITTEN and self._unread():
                self._phase = Phase.NOT_WRITTEN
            self._lose(receiver, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        if exc is not None and self.uploading and self.transport.get_extra_info("ssl_object") is None:
            read_last(self.transport.get_extra_info("socket"), self.data_received)
        receiver = self._receiver
        if receiver is not None and receiver.complete:
            self._finish(receiver)
        elif receiver is not None:
            self._lose(receiver, exc)
        else:
            self.ended = self._refused(exc) or self.ended
        self._leave()

    # --- ends -----------------------------------------------------------------------------------------

    def _finish(self, receiver: Receiver) -> None:
        """The reply is complete."""
        self._receiver = None
        self._watch.discard(self)
        self.resume()
        if receiver.status == 101:
            self.transport.pause_reading()  # until whoever asked for the upgrade takes over, or closes
        elif self.reader.reusable and not (self.uploading or self.last or self._gone):
            self._owner.release(self)
        else:
            (self.abort if self.uploading or self.transport.get_write_buffer_size() else self.close)()
        receiver.progressed()

    def _lose(self, receiver: Receiver, error: Exception | None) -> None:
        self._fail(self._refused(error) or lost(self._phase, receiver.status != 0, error))

    def _refused(self, error: Exception | None) -> Failure | None:
        return refused(self._phase, error, self.transport.get_extra_info("ssl_object"), first=not self._sent_before)

    def _unread(self) -> bool:
        """Only in clear text is what was sent also what was acknowledged."""
        tls, sock = map(self.transport.get_extra_info, ("ssl_object", "socket"))
        return tls is None and unread_by_peer(sock, self._sent_before)

    def _fail(self, failure: Failure) -> None:
        receiver, self._receiver = self._receiver, None
        self._watch.discard(self)
        self.abort()
        if receiver is not None:
            receiver.failed(failure)

    def _leave(self) -> None:
        if self._gone:
            return
        self._gone = True
        if not (self._sent or self.ended):
            self.ended = lost(Phase.NOT_WRITTEN, in_body=False, error=None)
        self.reader.close()
        self.resume_writing()
        self._owner.gone(self)

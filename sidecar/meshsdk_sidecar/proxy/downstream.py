"""One client's connection: its requests are answered one after the other, in the order they came.

Rule 1  One request is under way at a time. What was pipelined behind it waits; of bytes that nobody takes, no more than
        `HIGH_WATER` and what one read brings.
Rule 2  Every wait for the client has a bound: for a request's head, for its body, for the next request, and for an
        answer to be read. A client that is too slow is told so where HTTP can still tell it (408), and closed. One that
        does not read its answers is asked for no other request meanwhile.
Rule 3  A client that closes takes its request with it: nobody would read the answer.
Rule 4  An answer that came before the request's end closes the connection, once the client has stopped sending or
        `LINGER` seconds are over: closing at once would reset it, and the answer might never be read (RFC 9112, 9.6).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from math import inf
from typing import Any, Final

from meshsdk.errors import CallError
from meshsdk.wire.aio.gathered import gathered
from meshsdk.wire.aio.watch import Watch
from meshsdk.wire.http1.limits import RequestLimits
from meshsdk.wire.http1.replies import answer
from meshsdk.wire.http1.requests import Asked, Refused, RequestReader
from meshsdk.wire.sockets import left, prompt
from meshsdk_sidecar.proxy.tunnel import reset
from meshsdk_sidecar.proxy.work import Door, Patience, Work, status_of

__all__ = ["HIGH_WATER", "Downstream", "Patience", "Work"]

HIGH_WATER: Final = 256 * 1024
LINGER: Final = 2.0

# Bytes kept that nobody parses yet: behind very many requests, and of a protocol that is asked for and not agreed on.
_HELD: Final = 16 * 1024

_LIMITS: Final = RequestLimits()
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")


class Downstream(asyncio.Protocol):
    """A connection to a client.

    Args:
        door: answers its requests.
        watch: rings when a bound is over.
        clock: the watch's.
        patience: the bounds on its time.
        limits: those on what it sends.

    Attributes:
        door: as given.
        work: what answers the request at hand.
        stuck: what was written lies here, because the client does not read.
        who, address: what the door knows of the client; its own to set.
    """

    __slots__ = (
        "_clock",
        "_closing",
        "_ends",
        "_gone",
        "_in_head",
        "_paused",
        "_refused",
        "_serving",
        "_since",
        "_stuck_bytes",
        "_watch",
        "address",
        "door",
        "patience",
        "reader",
        "stuck",
        "transport",
        "who",
        "work",
    )

    transport: asyncio.Transport

    def __init__(
        self,
        door: Door,
        watch: Watch,
        clock: Callable[[], float],
        patience: Patience,
        limits: RequestLimits = _LIMITS,
    ) -> None:
        self.reader = RequestReader(limits)
        self.patience = patience
        self.work: Work | None = None
        self.stuck = False
        self.who: Any = None
        self.address = ""
        self.door = door
        self._watch = watch
        self._clock = clock
        self._since = clock()
        self._refused: Refused | None = None
        self._serving = self._closing = self._paused = self._gone = self._in_head = False
        self._ends = inf  # when it is closed whatever the client does; inf while it is served
        self._stuck_bytes = 0

    # --- for whoever answers --------------------------------------------------------------------------

    @property
    def keeps(self) -> bool:
        """Whether another request may follow the one at hand, as far as the client is concerned."""
        return not self._closing and self.reader.queue[0].keeps_alive

    def taken(self, size: int) -> None:
        """So many bytes of the request's body were taken."""
        self.reader.buffered -= size
        self._since = self._clock()
        if self._paused and self.reader.buffered < HIGH_WATER // 2:
            self._read_on()

    def done(self, keep: bool) -> None:
        """The request at hand is answered."""
        self.work = None
        if self._gone:
            return
        queue = self.reader.queue
        if not queue[0].complete:
            self._linger()
            return
        asked = queue.popleft()
        if asked.pieces:  # of a body that nobody wanted, and nobody will take any more
            self.reader.buffered -= sum(map(len, asked.pieces))
        if not keep or self._closing:
            self._say_no_more(asked)
            return
        if self.reader.held:
            self._parse_on()
        if not self._serving:
            if queue or self._refused is not None or self._paused:
                self._serve()
            else:
                self._since = since = self._clock()
                self._watch.sooner(since + (self.patience.head if self.reader.mid_head else self.patience.idle))

    def reply(self, status: int, body: bytes, fields: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Answer the request at hand without asking anybody, and be done with it."""
        asked = self.reader.queue[0]
        keep = self.keeps and asked.complete
        head_only = asked.method == b"HEAD"
        fields = (*fields, _TEXT) if body and not any(name == b"content-type" for name, _ in fields) else fields
        self.transport.write(answer(status, body, fields, close=not keep, version=asked.version, head_only=head_only))
        self.done(keep)

    def fail(self, error: CallError, *fields: tuple[bytes, bytes]) -> None:
        """Say why the request at hand has no other answer."""
        self.reply(status_of(error), f"{error}\n".encode(), ((b"x-mesh-flag", error.flag.encode()), *fields))

    def cut(self) -> None:
        """Break the answer off: the client must not take half of it for the whole."""
        self.work = None
        self._ends = self._clock()  # no other request is begun
        if self.reader.queue and self.reader.queue[0].version == "1.0":
            reset(self.transport)  # the end of the connection may be what ends the body
        else:
            self.transport.abort()

    def drain(self) -> None:
        """Close once the request at hand is answered; at once where there is none."""
        self._closing = True
        if self.work is None and self._ends == inf:
            self._close()

    def retire(self) -> None:
        """Close after the next answer; where nothing is asked any more, somebody else has to close it."""
        self._closing = True

    def release(self) -> asyncio.Transport:
        """Leave the connection to the work at hand, which sets a protocol of its own; it lasts until `let_go`."""
        self._watch.discard(self)
        return self.transport

    def let_go(self) -> None:
        """The connection that was released is closed."""
        self.work = None
        if not self._gone:
            self._gone = True
            self._watch.discard(self)
            self.door.closed(self)

    # --- what asyncio calls ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self.transport = gathered(transport)
        prompt(transport.get_extra_info("socket"))
        self.door.opened(self)
        self._watch.add(self, self.due())

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._ends < inf or self._refused is not None:
            return  # read and thrown away until it closes
        reader = self.reader
        try:
            reader.feed(data)
        except Refused as refused:
            self._refused = refused
        work = self.work
        if work is not None:
            self._since = self._clock()
            if self._refused is not None and not reader.queue[0].complete:
                self._give_up(self._refused)
                return
            work.more()
        elif reader.queue:
            self._serve()
        elif self._refused is not None:
            self._refuse(self._refused)
        elif reader.mid_head and not self._in_head:
            self._in_head = True
            self._since = since = self._clock()
            self._watch.sooner(since + self.patience.head)
        if reader.buffered >= HIGH_WATER or (reader.held and len(reader.surplus) >= _HELD):
            self._read_no_more()

    def eof_received(self) -> None:
        """The client has closed; asyncio closes our side too, once what was written is sent."""
        work, self.work = self.work, None
        if work is not None:
            work.abandon()
        self._end_within(self.patience.body)

    def pause_writing(self) -> None:
        """Asyncio: the client does not read."""
        self.stuck = True
        self._since = self._clock()
        self._stuck_bytes = self.transport.get_write_buffer_size()
        self._watch.sooner(self.due())
        if self.work is not None:
            self.work.hold()

    def resume_writing(self) -> None:
        """Asyncio: it reads again."""
        self.stuck = False
        self._since = self._clock()
        if self.work is not None:
            self.work.resume()
        elif self._ends == inf and not self._serving and not self._gone:
            self._serve()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whyever, it is gone
        """The connection is closed."""
        if self._gone:
            return
        self._gone = True
        self._watch.discard(self)
        work, self.work = self.work, None
        if work is not None:
            work.abandon()
        self.door.closed(self)

    # --- time -----------------------------------------------------------------------------------------

    def due(self) -> float:
        """When what the client has to do must be done."""
        patience = self.patience
        if self._ends < inf:
            return self._ends
        if self.stuck:
            return self._since + patience.body
        if self.work is not None:
            queue = self.reader.queue
            waits = queue and not queue[0].complete
            return self._since + patience.body if waits else inf
        return self._since + (patience.head if self.reader.mid_head else patience.idle)

    def overdue(self, now: float) -> None:
        """It was not done."""
        closing = self._ends < inf
        if (self.stuck or closing) and self._reads(now):
            self._ends = now + self.patience.body if closing else inf
            self._watch.add(self, self.due())
        elif self.stuck or closing:
            self.transport.abort()
        elif self._paused and not left(self.transport.get_extra_info("socket")):
            self._since = now  # it waits for us
            self._watch.add(self, self.due())
        elif self._paused:
            self.transport.abort()
        elif self.work is not None:
            self._give_up(Refused(408, "slow", f"nothing came of the request's body for {self.patience.body:g} s"))
        elif self.reader.mid_head:
            self._refuse(Refused(408, "slow", f"the request's head did not come within {self.patience.head:g} s"))
        else:
            self._close()

    def _reads(self, now: float) -> bool:
        """Whether the client has read some of what lies here since this was last asked."""
        before, self._stuck_bytes = self._stuck_bytes, self.transport.get_write_buffer_size()
        if self._stuck_bytes >= before:
            return False
        self._since = now
        return True

    # --- one request after the other ------------------------------------------------------------------

    def _serve(self) -> None:
        """Begin what has come, as long as it is answered at once; a loop, as a recursion could be thousands deep."""
        self._serving = True
        self._in_head = False
        queue, begin = self.reader.queue, self.door.begin
        while queue and self.work is None and not (self._gone or self.stuck) and self._ends == inf:
            if self._refused is not None and not queue[0].complete:
                break  # what came of its body is faulty: nobody is to see half of it
            begin(self, queue[0])
        self._serving = False
        if self._gone or self._ends < inf:
            return
        if self.work is not None and self.reader.queue[0].complete and not self._paused:
            return  # nothing is waited for from the client
        self._since = self._clock()
        if self._paused and not self.reader.held and self.reader.buffered < HIGH_WATER:
            self._read_on()
        if self.work is None and not (queue and self.stuck):
            if self._refused is not None:
                self._refuse(self._refused)
            elif self._closing:
                self._close()
        self._watch.sooner(self.due())

    def _read_no_more(self) -> None:
        if not (self._paused or self._gone):
            self._paused = True
            self.transport.pause_reading()

    def _read_on(self) -> None:
        self._paused = False
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _give_up(self, refused: Refused) -> None:
        """The rest of the request at hand will not come."""
        work, self.work = self.work, None
        assert work is not None
        begun = work.begun
        work.abandon()
        if begun:
            self.door.refused(self, refused)
            self.cut()
        else:
            self._refuse(refused)

    def _refuse(self, refused: Refused) -> None:
        self._refused = refused
        text = f"{refused}\n".encode()
        self.transport.write(answer(refused.status, text, (_TEXT,), close=True, version="1.1", head_only=False))
        self.door.refused(self, refused)
        self._linger()

    def _parse_on(self) -> None:
        """What came behind a request that asked for an upgrade, or behind very many, is another one."""
        try:
            self.reader.resume()
        except Refused as refused:
            self._refused = refused

    def _linger(self) -> None:
        """Say no more, and read what the client still sends, a bounded time."""
        if self._paused:
            self._read_on()
        unsent = self.transport.get_write_buffer_size()
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # asyncio's, where the client has reset it: that is read next
                self.transport.write_eof()
        self._end_within(self.patience.body if unsent else LINGER)

    def _say_no_more(self, asked: Asked) -> None:
        """A client that counts on another request may be sending it: a reset could cost it the answer (rule 4)."""
        if (asked.keeps_alive or self._paused) and self.transport.can_write_eof():
            self._linger()
        else:
            self._close()

    def _close(self) -> None:
        self.transport.close()
        self._end_within(self.patience.body)

    def _end_within(self, seconds: float) -> None:
        self._ends = self._clock() + seconds
        self._stuck_bytes = self.transport.get_write_buffer_size()
        if not self._gone:
            self._watch.add(self, self._ends)

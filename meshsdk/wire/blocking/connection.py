"""One connection of a thread: sends a request, reads a reply, and never waits past a bound.

The socket itself does not block; waiting is done by `poll`, so that every wait has the bound in force at that moment.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Callable, Iterable
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from meshsdk.core.model import Endpoint, Failure, Phase, TransportFailure
from meshsdk.wire.blocking.dial import NO_WAYS, dial, peer_of, tls_of, ways_of
from meshsdk.wire.blocking.waits import Arrivals, Late, ready
from meshsdk.wire.engine import Bounds
from meshsdk.wire.failures import breach, closed, connect_timed_out, late, lost, refused, stuck, unconnected
from meshsdk.wire.http1 import (
    CONTINUE_WITHIN,
    BodyWriter,
    Framing,
    Head,
    Incoming,
    Limits,
    ProtocolError,
    ResponseReader,
)
from meshsdk.wire.pooling import Pooling
from meshsdk.wire.security import Security
from meshsdk.wire.sockets import unread_by_peer

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["BlockingConnection"]

# Large enough that a stream is read in few calls, small enough not to be mapped and unmapped anew by malloc.
_READ: Final = 64 * 1024

_WANTS: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class BlockingConnection:
    """A connection to one endpoint, carrying one request at a time.

    Args:
        endpoint: where to.
        security: how to secure it; None for clear text.
        clock: seconds, monotonic.
        limits: on what replies may be.
        pooling: how long it may be kept.

    Threads that work on the socket hold it: whoever closes the connection under them shuts it down, and the last of
    them closes the descriptor. Its number could be another's before they are done with it.

    Attributes:
        closed: by this process.
        peer: the address at the other end, also when it is closed; None where that was not to be had.
        sock: the socket, None before it is open.
        tls: tells of the connection's TLS, also when it is closed; None in clear text, or before it is open.
    """

    __slots__ = (
        "_arrivals",
        "_bounds",
        "_clock",
        "_endpoint",
        "_held",
        "_idle_since",
        "_last",
        "_limit_age",
        "_limit_idle",
        "_pending",
        "_phase",
        "_reader",
        "_receive",
        "_security",
        "_send",
        "_sent",
        "_sent_before",
        "_whole",
        "closed",
        "peer",
        "sock",
        "tls",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        security: Security | None,
        clock: Callable[[], float],
        limits: Limits,
        pooling: Pooling,
    ) -> None:
        self._endpoint = endpoint
        self._security = security
        self._clock = clock
        self._limit_idle = pooling.keep_alive if security is None else pooling.keep_secured
        self._limit_age = clock() + pooling.max_age
        self._reader = ResponseReader(limits)
        self._arrivals = Arrivals(select.poll(), clock, pooling.look)
        self.sock: socket.socket | None = None
        self.tls: ssl.SSLObject | None = None
        self.peer: Any = None
        self._pending: Callable[[], int]
        self._send: Callable[[Buffer], int]
        self._receive: Callable[[int], bytes]
        self._bounds = Bounds()
        self._phase = Phase.NOT_CONNECTED
        self._idle_since = 0.0
        self._sent = 0
        self._sent_before = 0
        self._whole = True
        self._last = False
        self._held: set[int] = set()
        self.closed = False

    # --- for the lanes and the engine -----------------------------------------------------------------

    def has_expired(self) -> bool:
        """It was idle for too long, is too old, or the server has closed it."""
        now = self._clock()
        if now - self._idle_since >= self._limit_idle or now >= self._limit_age:
            return True
        return not (self._arrivals.none() or self._only_tls())

    @property
    def reusable(self) -> bool:
        """The reply is complete, and another request may follow."""
        return self._whole and self._reader.reusable and not self._last

    def _only_tls(self) -> bool:
        """Whether nothing came but, under TLS, its own messages: 1.3 sends tickets unasked (RFC 8446, 4.6.1)."""
        if self._security is None or self.sock is None:
            return False
        try:
            self._receive(1)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            return False
        return False

    def rest(self) -> None:
        """It carries nothing from now on."""
        self._idle_since = self._clock()

    def open(self, bounds: Bounds) -> None:
        """Connect; raises TransportFailure."""
        now = self._clock()
        left = bounds.deadline - now
        until = now + min(left, bounds.connect)
        self.hold()
        try:
            self.sock = dial(self._endpoint, self._security, lambda sock, event: self._wait_for(sock, event, until))
            self.tls, self.peer = tls_of(self.sock), peer_of(self.sock)
            self._send, self._receive, self._pending = ways_of(self.sock)
            self._arrivals.watch(self.sock)
        except Late:
            raise TransportFailure(
                connect_timed_out(bounds.connect)
                if left > bounds.connect
                else late(Phase.NOT_CONNECTED, in_body=False, overdue=True)
            ) from None
        except Exception as error:  # whatever a check raises, the peer is not the one
            raise TransportFailure(unconnected(error)) from error
        finally:
            self.release()
        if self.closed:
            raise TransportFailure(closed(Phase.NOT_CONNECTED))

    def exchange(self, into: Incoming, method: str, head: Head, body: bytes | Iterable[bytes], bounds: Bounds) -> None:
        """Send a request and read on until the reply's head is in `into`, or all of a short one.

        Raises TransportFailure.
        """
        self._bounds = bounds
        self._phase = Phase.NOT_WRITTEN
        self._sent_before = self._sent
        self._last = head.closes
        try:
            self._begin(into)
            self._reader.expect(method, into)
            if isinstance(body, bytes) and not head.expects and head.length != Framing.CHUNKED:
                self._whole = self._write(into, head.data + body if body else head.data)
            else:
                self._whole = False
                self._whole = self._write(into, head.data) and self._upload(into, head, body)
            while not into.complete and (not into.status or self._reader.short):
                self._advance(into)
        finally:
            self.release()

    def advance(self, into: Incoming) -> None:
        """Wait for the next bytes of the reply; raises TransportFailure."""
        try:
            self._begin(into)
            self._advance(into)
        finally:
            self.release()

    def drain(self, into: Incoming, most: int) -> None:
        """Read what is there of a body that nobody wants, without waiting, up to `most` bytes."""
        try:
            self._begin(into)
            while not into.complete and most > 0:
                self._take_in(into)
                most -= sum(map(len, into.pieces))
                into.pieces.clear()
        except (*_WANTS, OSError, TransportFailure):
            return
        finally:
            self.release()

    def close(self) -> None:
        """Close the connection; threads that hold it notice."""
        self.closed = True
        if self.sock is not None:
            with contextlib.suppress(OSError):
                # `SSLSocket.shutdown` takes TLS away before: what another thread sends meanwhile goes out in clear text
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        if not self._held:
            self.drop()

    def drop(self) -> None:
        """Close this process's side of it only."""
        self.closed = True
        self._reader.close()
        if self.sock is not None:
            self._send, self._receive, self._pending = NO_WAYS  # the others know a number that may soon be another's
            self.sock.close()

    def hold(self) -> None:
        """The calling thread works on the socket until it calls `release`, if it is not `closed` by now.

        Who closes says so before it looks who holds, and who holds says so before it looks whether it is closed: one
        of both sees the other, without a lock.
        """
        self._held.add(get_ident())

    def release(self) -> None:
        """The calling thread is done with the socket."""
        self._held.discard(get_ident())
        if self.closed and not self._held:
            self.drop()

    def _begin(self, into: Incoming) -> None:
        self._held.add(get_ident())  # as `hold`
        if self.closed:
            raise TransportFailure(self._lost(into, None))

    # --- sending --------------------------------------------------------------------------------------

    def _write(self, into: Incoming, data: bytes) -> bool:
        """Send all of `data`, unless the server answers before that with an error; says whether all was sent."""
        sock = self.sock
        assert sock is not None
        self._phase = max(self._phase, Phase.WRITTEN)
        self._sent += len(data)
        try:
            done = self._send(data)
        except _WANTS:
            done = 0
        except OSError as error:
            return self._refused(into, error)
        return done == len(data) or self._write_rest(into, sock, memoryview(data)[done:])

    def _write_rest(self, into: Incoming, sock: socket.socket, data: memoryview) -> bool:
        bounds = self._bounds
        since = self._clock()
        while data:
            due = min(bounds.deadline, since + bounds.write)
            try:
                ready = self._wait_for(sock, select.POLLIN | select.POLLOUT, due)
                if ready & select.POLLIN:
                    with contextlib.suppress(*_WANTS):  # TLS has messages of its own
                        self._take_in(into)
                    if into.status >= 300:
                        return False
                done = self._send(data)
            except _WANTS:
                continue
            except Late:
                overdue = bounds.deadline <= self._clock()
                raise TransportFailure(late(self._phase, False, overdue) if overdue else stuck(self._phase)) from None
            except OSError as error:
                return self._refused(into, error)
            data = data[done:]
            since = self._clock()
        return True

    def _refused(self, into: Incoming, error: OSError) -> bool:
        """The server reads no more; it may have said why before it closed (RFC 9112, 9.5)."""
        while not into.status:
            try:
                self._advance(into)
            except TransportFailure as failure:
                told = failure.failure
                if self._phase >= Phase.REPLY_STARTED or told.phase == Phase.NOT_WRITTEN or told.kind == "tls":
                    raise
                raise TransportFailure(self._lost(into, error)) from error
        return False

    def _upload(self, into: Incoming, head: Head, body: bytes | Iterable[Buffer]) -> bool:
        if head.expects and not self._told_to_go_on(into):
            return False
        writer = BodyWriter(head.length)
        for piece in (body,) if isinstance(body, bytes) else body:
            data = writer.piece(piece)
            if data and not self._write(into, data):
                return False
        last = writer.end()
        return not last or self._write(into, last)

    def _told_to_go_on(self, into: Incoming) -> bool:
        """Wait for `100 Continue`, but not for ever: some servers never say it. False where there is a final reply."""
        until = self._clock() + CONTINUE_WITHIN
        while not (into.status or self._reader.continued):
            try:
                data = self._read(min(until, self._bounds.deadline))
            except Late:
                break
            except OSError as error:
                raise TransportFailure(self._lost(into, error)) from error
            self._feed(into, data)
        return not into.status

    # --- reading --------------------------------------------------------------------------------------

    def _advance(self, into: Incoming) -> None:
        bounds = self._bounds
        if into.status:
            deadline, most = bounds.body_deadline, min(bounds.idle, bounds.read)
        else:
            deadline, most = bounds.deadline, bounds.read
        try:
            data = self._read(min(deadline, self._clock() + most) if most < inf else deadline)
        except Late:
            failure = late(self._phase, into.status != 0, deadline <= self._clock())
            raise TransportFailure(failure) from None
        except OSError as error:
            raise TransportFailure(self._lost(into, error)) from error
        self._feed(into, data)

    def _read(self, until: float) -> bytes:
        sock = self.sock
        assert sock is not None
        if not self._pending():  # a read that finds nothing costs more than to wait first
            self._arrivals.wait(until)
        while True:
            try:
                return self._receive(_READ)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._arrivals.wait(until)
            except ssl.SSLWantWriteError:
                self._wait_for(sock, select.POLLOUT, until)
            except ssl.SSLZeroReturnError:
                return b""

    def _take_in(self, into: Incoming) -> None:
        """Read what is here, without waiting."""
        try:
            data = self._receive(_READ)
        except ssl.SSLZeroReturnError:
            data = b""
        self._feed(into, data)

    def _feed(self, into: Incoming, data: bytes) -> None:
        if data:
            self._phase = Phase.REPLY_STARTED
            try:
                self._reader.feed(data)
            except ProtocolError as error:
                raise TransportFailure(breach(self._phase, error)) from error
        elif self.closed or not self._reader.ended():  # closed: the end may be of our own making
            raise TransportFailure(self._lost(into, None))

    def _lost(self, into: Incoming, error: OSError | None) -> Failure:
        """What the end of the connection means; without `error` it ended in good order."""
        phase = self._phase
        if self.closed:
            return closed(phase, error)
        if error is None and phase == Phase.WRITTEN and self._security is None:
            assert self.sock is not None
            if unread_by_peer(self.sock, self._sent_before):
                phase = Phase.NOT_WRITTEN
        return refused(phase, error, self.tls, first=not self._sent_before) or lost(phase, into.status != 0, error)

    def _wait_for(self, sock: socket.socket, events: int, until: float) -> int:
        """Wait for one of `events`; raises `Late`."""
        return ready(sock, events, until - self._clock())

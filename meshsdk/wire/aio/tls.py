"""TLS over a connection of which one direction may end before the other, as plain TCP has it.

In TLS 1.3 each end closes its own direction by `close_notify` and reads on (RFC 8446, 6.1). asyncio's own TLS, and
uvloop's, take the peer's `close_notify` for the end of both, and drop what the answer to it would have been.

Rule 1  Whoever closes says so first; a connection that ends without is broken, not ended: it may have been cut by
        somebody else (RFC 8446, 6.1).
Rule 2  Nothing is kept here: records are written as they are made, and read as they come, so that the buffers below
        are all there are. OpenSSL's own never shrink, 22 KB each way: so it has one record at a time, and the two are
        the loop's, for all its connections. (uvloop's TLS keeps up to 0.8 MB a connection, asyncio's 0.5.)
Rule 3  Between the handshake and the protocol that it was made for nothing is read: its end, too, waits for the one
        who has to be told.
Rule 4  OpenSSL is given whole records: a read that finds half of one costs as much as one that finds all of it.
Rule 5  Between two operations the loop's buffers are empty: what OpenSSL wrote is taken before anything else happens,
        and what it left, after an error or a break, is dropped before the next. No connection finds what is another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from meshsdk.wire.aio.gathered import gathered
from meshsdk.wire.aio.records import RECORD, buffers, end_of_record

__all__ = ["Secured"]


class Secured(asyncio.Transport):
    """The inside of one TLS connection: the protocol of the connection below, and the transport of what is above.

    Args:
        context: of this end.
        ready: told once: the handshake is done, or why it never will be. Who is given none awaits `shaken`.
        server_side: whether this end was called.
        server_hostname: for SNI; empty sends none.

    Attributes:
        transport: the connection below.
    """

    transport: asyncio.Transport

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        ready: Callable[[Exception | None], None] | None = None,
        server_side: bool = False,
        server_hostname: str = "",
    ) -> None:
        super().__init__()
        self._context = context
        self._incoming, self._outgoing = buffers()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname or None
        )
        self._unread, self._at = b"", 0  # of what came, OpenSSL has had so much
        self._ready = ready
        self._shaking = True
        self._waiting: asyncio.Future[None] | None = None
        self._protocol: asyncio.Protocol | None = None
        self._error: Exception | None = None
        self._paused = self._shut = self._ended = self._end_told = self._closing = False

    # --- the connection below -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self.transport = gathered(transport)
        self._clear()
        self._shake()

    def data_received(self, data: bytes) -> None:
        """Records have come, or parts of one; what follows the peer's end counts for nothing (RFC 8446, 6.1)."""
        if self._ended:
            return
        self._unread = self._unread + data if self._unread else data
        if self._shaking:
            while self._shaking and not self._closing and self._give():
                self._shake()
        else:
            self._read()

    def eof_received(self) -> bool:
        """The peer closed; where it did not say so before, the connection is broken (rule 1)."""
        if not self._ended:
            self._break(ConnectionResetError("the peer closed the connection without TLS's close_notify"))
        return self._ended

    def pause_writing(self) -> None:
        """What was written is too much for now."""
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Write on."""
        if self._protocol is not None:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._closing = True
        error = self._error or exc
        if self._shaking:
            self._tell(error or ConnectionResetError("the peer closed the connection during the handshake"))
        elif self._protocol is not None:
            # Each knows the other: the two would wait for the collector of cycles.
            protocol, self._protocol = self._protocol, None
            protocol.connection_lost(error)
        else:
            self._error = error or ConnectionResetError("the peer closed the connection after the handshake")

    # --- the handshake --------------------------------------------------------------------------------

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._flush()  # the alert that says why
            self._closing = True
            self.transport.close()
            self._tell(error)
        else:
            self._flush()
            self._tell(None)
            if self._protocol is None:
                self.pause_reading()  # rule 3
            else:
                self._read()

    async def shaken(self) -> None:
        """Wait until the handshake is done; raises OSError, of which ssl.SSLError is one, where it never will be."""
        if self._shaking:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        if self._error is not None:
            raise self._error

    def _tell(self, error: Exception | None) -> None:
        self._shaking = False
        self._error = error
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        ready, self._ready = self._ready, None
        if ready is not None:
            ready(error)

    # --- what is above --------------------------------------------------------------------------------

    def carry(self, protocol: asyncio.BaseProtocol) -> None:
        """Be the transport of `protocol` from now on, as if a connection had just been made."""
        self.set_protocol(protocol)
        self._unpause()
        protocol.connection_made(self)
        self._read()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell `protocol` from now on."""
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who is told."""
        return self._protocol or cast(asyncio.BaseProtocol, self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`ssl_object` and `sslcontext`, and what is known of the connection below."""
        if name == "ssl_object":
            return self._tls
        return self._context if name == "sslcontext" else self.transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing or self.transport.is_closing()

    def is_reading(self) -> bool:
        """Whether more is read."""
        return not self._paused and not self._ended and not self.is_closing()

    def pause_reading(self) -> None:
        """Read no more; what came with the last read waits."""
        self._paused = True
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._unpause():
            asyncio.get_running_loop().call_soon(self._read)

    def _unpause(self) -> bool:
        if not self._paused or self.is_closing():
            return False
        self._paused = False
        self.transport.resume_reading()
        return True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As of the connection below."""
        self.transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Bytes of records that wait to be sent."""
        return self.transport.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """As of the connection below."""
        return self.transport.get_write_buffer_limits()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send `data`."""
        if self._shut and not self.is_closing():  # who writes after the end need not know that it came
            raise RuntimeError("written after write_eof: the peer was told that no more comes")
        if not data or self.is_closing():
            return
        self._clear()
        try:
            if len(data) <= RECORD:
                self.transport.write(self._record(data))
            else:
                self.transport.writelines(self._records((data,)))
        except ssl.SSLError as error:
            self._break(error)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Send all of them, in as few records as if they were one; only what shares a record is copied."""
        pieces = list(list_of_data)
        if len(pieces) == 1 or sum(map(len, pieces)) <= RECORD or self._shut or self.is_closing():
            self.write(b"".join(pieces))
            return
        self._clear()
        try:
            self.transport.writelines(self._records(pieces))
        except ssl.SSLError as error:
            self._break(error)

    def _records(self, pieces: Sequence[bytes | bytearray | memoryview[Any]]) -> list[bytes]:
        records = []
        begun: bytes | memoryview[Any] = b""  # a record, with what came before
        for piece in pieces:
            view = memoryview(piece)
            at = 0
            if begun:
                at = RECORD - len(begun)
                begun = b"".join((begun, view[:at]))
                if len(begun) < RECORD:
                    continue
                records.append(self._record(begun))
            end = len(view) - RECORD
            while at <= end:
                records.append(self._record(view[at : at + RECORD]))
                at += RECORD
            begun = view[at:]
        if begun:
            records.append(self._record(begun))
        return records

    def _record(self, data: bytes | bytearray | memoryview[Any]) -> bytes:
        self._tls.write(data)
        return self._outgoing.read()

    def can_write_eof(self) -> bool:
        """Yes."""
        return True

    def write_eof(self) -> None:
        """Say that no more comes; the peer's direction stays open."""
        if not self._shut and not self.is_closing():
            self._shut = True
            self._clear()
            with contextlib.suppress(ssl.SSLError):  # that has not come, and has time
                self._tls.unwrap()
            self._flush()

    def close(self) -> None:
        """Close once all is sent, with a word of goodbye; nothing more is read."""
        if not self.is_closing():
            self.write_eof()
            self._closing = True
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self.transport.abort()

    # --- records --------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Hand over what came, and its end."""
        if self._hears:
            pieces: list[bytes] = []
            self._hand_over(pieces, self._open(pieces))

    @property
    def _hears(self) -> bool:
        """Whether there is somebody to hand it to, who takes it now."""
        return not (self._protocol is None or self._paused or self._end_told or self.is_closing())

    def _open(self, pieces: list[bytes]) -> Exception | None:
        """Take what is in the records that are here, and tell what is wrong with them; sets `_ended`."""
        while not self._ended and self._give():
            try:
                piece = self._tls.read(RECORD)
            except ssl.SSLWantReadError:
                continue  # a ticket, or new keys
            except ssl.SSLZeroReturnError:
                piece = b""
            except ssl.SSLError as error:
                return error
            if piece:
                pieces.append(piece)
            else:
                self._ended = True
                self._unread, self._at = b"", 0
        return None

    def _give(self) -> bool:
        """Give OpenSSL the next record that is here, if it is whole (rule 4)."""
        data, begin = self._unread, self._at
        end = end_of_record(data, begin)
        if not end:
            self._unread, self._at = data[begin:], 0
            return False
        self._clear()
        if end < len(data):
            self._incoming.write(memoryview(data)[begin:end])
            self._at = end
        else:
            self._incoming.write(memoryview(data)[begin:] if begin else data)
            self._unread, self._at = b"", 0
        return True

    def _clear(self) -> None:
        """Drop what a connection left that broke (rule 5)."""
        if self._incoming.pending:
            self._incoming.read()
        if self._outgoing.pending:
            self._outgoing.read()

    def _hand_over(self, pieces: list[bytes], broken: Exception | None) -> None:
        self._flush()  # an answer to a peer that changes its keys, or the alert that says what is wrong
        assert self._protocol is not None
        if pieces:
            self._protocol.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if broken is not None:
            self._break(broken)
        elif self._ended and self._hears:  # whoever stopped reading at these pieces may be followed by another
            self._end_told = True
            if not self._protocol.eof_received():
                self.close()

    def _flush(self) -> None:
        if self._outgoing.pending:
            records = self._outgoing.read()
            if not self.transport.is_closing():
                self.transport.write(records)

    def _break(self, error: Exception) -> None:
        self._error = self._error or error
        self.abort()

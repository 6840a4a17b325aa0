"""A client from outside: its connection, and its requests on their way.

Rule 1  What goes wrong inside is for the log; a client hears that there is no answer, and no name or address.
Rule 2  Every answer to a request wears the security headers, also those that are not the service's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus

from meshsdk.errors import CallError
from meshsdk.wire.aio.watch import Watch
from meshsdk.wire.http1 import Refused, RequestLimits, RequestReader
from meshsdk_sidecar.gateway.fields import Attire
from meshsdk_sidecar.proxy.downstream import Downstream
from meshsdk_sidecar.proxy.forwarding import Forwarding
from meshsdk_sidecar.proxy.work import Door, Patience, status_of

__all__ = ["Carried", "Guest", "peer_of"]

log = logging.getLogger("meshsdk.gateway")


class Guest(Downstream):
    """A connection to a client from outside.

    Args:
        attire: of answers; None for none.
        head: bytes of one request's head.
        body: bytes of one request's body; None for any number.
    """

    __slots__ = ("_body", "_received", "attire")

    def __init__(  # noqa: PLR0917 - as of Downstream
        self,
        door: Door,
        watch: Watch,
        clock: Callable[[], float],
        patience: Patience,
        attire: Attire | None,
        head: int,
        body: int | None,
    ) -> None:
        super().__init__(door, watch, clock, patience)
        self.reader = RequestReader(RequestLimits(line=min(16 * 1024, head), head=head, field=min(32 * 1024, head)))
        self.attire = attire
        self._body = body
        self._received = 0

    def reply(self, status: int, body: bytes, fields: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Answer the request at hand without asking anybody, and be done with it."""
        super().reply(status, body, fields if self.attire is None else (*fields, *self.attire.fields))

    def fail(self, error: CallError) -> None:
        """Say that the request at hand has no other answer; why is in the log."""
        log.warning("%s", error)
        status = HTTPStatus(status_of(error))
        self.reply(status, f"{status.value} {status.phrase}\n".encode())

    # --- the bound on bodies ----------------------------------------------------------------------------

    def within(self) -> bool:
        """Whether the body of the request that begins is not longer than allowed, as far as it is known."""
        asked = self.reader.queue[0]
        self._received = 0
        return self._body is None or max(asked.length, sum(map(len, asked.pieces))) <= self._body

    def taken(self, size: int) -> None:
        """So many bytes of the request's body were taken."""
        self._received += size
        super().taken(size)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        super().data_received(data)
        most = self._body
        if most is not None and self.work is not None and self.reader.queue:
            asked = self.reader.queue[0]
            if self._received + sum(map(len, asked.pieces)) > most:
                self._give_up(Refused(413, "size", f"the body has more than {most} bytes (limits.body)"))


class Carried(Forwarding):
    """One request from outside on its way to a service."""

    __slots__ = ("_attire",)

    _attire: Attire

    def wear(self, attire: Attire) -> None:
        """What the answer is to wear."""
        self._attire = attire

    def progressed(self) -> None:
        """Something of the reply has come."""
        if self.status and not self._relaying and not self._over:
            self.headers = self._attire.put_on(self.headers)
        super().progressed()


def peer_of(transport: asyncio.BaseTransport) -> str:
    """The address at the other end."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""

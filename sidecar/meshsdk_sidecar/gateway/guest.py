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
from meshsdk.wire.http1 import RequestLimits, RequestReader
from meshsdk_sidecar.gateway.fields import Attire, cleansed
from meshsdk_sidecar.proxy.downstream import Downstream
from meshsdk_sidecar.proxy.forwarding import Forwarding
from meshsdk_sidecar.proxy.work import Door, Patience, status_of

__all__ = ["Carried", "Guest", "peer_of"]

log = logging.getLogger("meshsdk.gateway")


class Guest(Downstream):
    """A connection to a client from outside.

    Args:
        limits: on what the client sends.
        attire: of answers; None for none.
    """

    __slots__ = ("attire",)

    def __init__(  # noqa: PLR0917 - as of Downstream
        self,
        door: Door,
        watch: Watch,
        clock: Callable[[], float],
        patience: Patience,
        limits: RequestLimits,
        attire: Attire | None,
    ) -> None:
        super().__init__(door, watch, clock, patience)
        self.reader = RequestReader(limits)
        self.attire = attire

    def reply(self, status: int, body: bytes, fields: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Answer the request at hand without asking anybody, and be done with it."""
        super().reply(status, body, fields if self.attire is None else (*fields, *self.attire.fields))

    def fail(self, error: CallError, *fields: tuple[bytes, bytes]) -> None:  # noqa: ARG002 - they are the mesh's own
        """Say that the request at hand has no other answer; why is in the log."""
        log.warning("%s", error)
        status = HTTPStatus(status_of(error))
        self.reply(status, f"{status.value} {status.phrase}\n".encode())


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
        if self.trailers:
            self.trailers = self._attire.stripped(self.trailers)
        super().progressed()

    def interim(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """An interim reply has come."""
        super().interim(status, self._attire.stripped(headers))

    def _piece(self) -> bytes:
        if self._asked.trailers:
            self._asked.trailers = cleansed(self._asked.trailers)
        return super()._piece()


def peer_of(transport: asyncio.BaseTransport) -> str:
    """The address at the other end."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else ""

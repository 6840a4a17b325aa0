"""What answers requests, for the connection they came on: where they go, whatever works at one, how long is waited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meshsdk.errors import BadReply, CallError, DeadlineExceeded

if TYPE_CHECKING:
    from meshsdk.server.inbound import ServedRequest
    from meshsdk.wire.http1.requests import Asked, Refused
    from meshsdk_sidecar.proxy.downstream import Downstream

__all__ = ["Door", "Patience", "Waiting", "Work", "settle", "status_of"]


def status_of(error: CallError) -> int:
    """What a caller is answered in an error's place: 504 for time, 502 for a broken answer, else 503."""
    if isinstance(error, DeadlineExceeded):
        return 504
    return 502 if isinstance(error, BadReply) else 503


def settle(served: ServedRequest, status: int, error: CallError | None) -> None:
    """Tell what a caller's request was answered with, and what went wrong."""
    served.status = status
    if error is not None:
        served.flag = served.flag or error.flag
    served.end(error)


class Patience:
    """How long a client is waited for, in seconds.

    Attributes:
        head: for the rest of a head (nginx: 60; a phone on a bad line needs 3).
        idle: for the next request (nginx: 75, Envoy: 3600; above what clients keep, so that they close first).
        body: for the next piece of a body, and for it to take the next piece of an answer (nginx: 60).
    """

    __slots__ = ("body", "head", "idle")

    def __init__(self, head: float = 15.0, idle: float = 300.0, body: float = 60.0) -> None:
        self.head = head
        self.idle = idle
        self.body = body


class Work(Protocol):
    """Whatever answers one request."""

    @property
    def begun(self) -> bool:
        """Whether bytes of the answer are out, so that no other can be given."""
        ...

    def more(self) -> None:
        """More of the request has come."""
        ...

    def hold(self) -> None:
        """The client takes no more of the answer for now."""
        ...

    def resume(self) -> None:
        """It takes more again."""
        ...

    def abandon(self) -> None:
        """The client is gone; called once, and nothing may be written any more."""
        ...


class Waiting:
    """Work that waits for something else than the client, and answers at once when that is there."""

    __slots__ = ()

    @property
    def begun(self) -> bool:
        """No."""
        return False

    def more(self) -> None:
        """It stays where it is."""

    def hold(self) -> None:
        """Nothing was written."""

    def resume(self) -> None:
        """Nor is it now."""

    def abandon(self) -> None:
        """Nothing is left to undo."""


class Door(Protocol):
    """Where requests go from here."""

    def begin(self, downstream: Downstream, asked: Asked) -> None:
        """Answer a request: set `downstream.work`, or write the answer and call `downstream.done`."""
        ...

    def opened(self, downstream: Downstream) -> None:
        """A connection stands."""
        ...

    def closed(self, downstream: Downstream) -> None:
        """It is gone; told once."""
        ...

    def refused(self, downstream: Downstream, refused: Refused) -> None:
        """What came is no request, or came too late; it is answered already."""
        ...

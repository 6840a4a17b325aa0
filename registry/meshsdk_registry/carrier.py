"""What carries requests to Consul: what it is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

__all__ = ["Answered", "Carrier", "Silence", "Unanswered"]


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer; its fields are found by name in any case."""

    status: int
    fields: Mapping[str, str]
    text: str


class Silence(StrEnum):
    """Why there is no answer, as people are told it."""

    CROWDED = "all connections of this process to Consul are waiting"
    HUNG_UP = "the agent closed a new connection without an answer"
    FOREIGN = "the answer is not HTTP"
    LATE_CONNECTING = "no connection in time"
    REFUSED = "nobody accepts connections"
    LATE = "no answer in time"
    INCOMPLETE = "no complete answer in time"
    BROKEN = "the connection broke"
    CUT = "the connection closed before the answer was complete"
    FAILED = "the request failed"


class Unanswered(Exception):
    """A request got no answer; the message is the carrier's own.

    Attributes:
        why: in words for people.
    """

    def __init__(self, why: Silence, detail: str) -> None:
        super().__init__(detail)
        self.why = why


class Carrier(Protocol):
    """Sends requests in one event loop."""

    async def send(self, method: str, url: str, fields: Mapping[str, str], body: bytes, *, patience: float) -> Answered:
        """Send one request.

        Args:
            url: whole, percent-encoded.
            fields: besides Host and the body's length.
            patience: seconds the answer may begin after.

        Raises:
            Unanswered: there is no answer, or not all of it.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections; what waits for an answer ends with `Unanswered`."""
        ...

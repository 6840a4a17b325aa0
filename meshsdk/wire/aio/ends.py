"""Whom a connection tells: who waits for its reply, and who keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshsdk.wire.http1 import Incoming

if TYPE_CHECKING:
    from meshsdk.core.model import Failure
    from meshsdk.wire.aio.connection import Connection

__all__ = ["Owner", "Receiver"]


class Receiver(Incoming):
    """Whoever waits for a reply; the reply comes into it."""

    __slots__ = ()

    def progressed(self) -> None:
        """Something has come; `status`, `pieces` and `complete` say what. Must not raise."""
        raise NotImplementedError

    def failed(self, failure: Failure) -> None:
        """No more will come. Must not raise."""
        raise NotImplementedError

    def writable(self) -> None:
        """The peer has read what was stuck; more of the request may be written. Must not raise."""


class Owner:
    """Who keeps a connection while it carries nothing: a pool."""

    __slots__ = ()

    def release(self, connection: Connection) -> None:
        """It is free again."""
        raise NotImplementedError

    def gone(self, connection: Connection) -> None:
        """It is closed; told once."""
        raise NotImplementedError

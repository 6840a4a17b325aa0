"""Whom a connection tells: who waits for its reply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshsdk.wire.http1 import Incoming

if TYPE_CHECKING:
    from meshsdk.core.model import Failure

__all__ = ["Receiver"]


class Receiver(Incoming):
    """Whoever waits for a reply, which comes into it. A connection that its receiver reads itself tells it nothing."""

    __slots__ = ()

    def progressed(self) -> None:
        """Something has come; `status`, `pieces` and `complete` say what. Must not raise."""
        raise NotImplementedError

    def failed(self, failure: Failure) -> None:
        """No more will come. Must not raise."""
        raise NotImplementedError

    def writable(self) -> None:
        """The peer has read what was stuck; more of the request may be written. Must not raise."""

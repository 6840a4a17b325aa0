"""A try that waits for its connection to an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshsdk.wire.aio.pool import Waiter

if TYPE_CHECKING:
    from meshsdk.core.model import Failure
    from meshsdk.wire.aio.connection import Connection
    from meshsdk.wire.engine import Bounds
    from meshsdk_sidecar.proxy.forwarding import Forwarding

__all__ = ["Turn"]


class Turn(Waiter):
    """A try that waits for its connection."""

    __slots__ = ("_forwarding",)

    def __init__(self, forwarding: Forwarding, bounds: Bounds) -> None:
        super().__init__(bounds)
        self._forwarding = forwarding

    def granted(self, connection: Connection) -> None:
        """Here is one."""
        self._forwarding.connected(connection)

    def refused(self, failure: Failure) -> None:
        """There will be none."""
        self._forwarding.failed(failure)

"""Whom a connection tells: who keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshsdk.wire.aio.connection import Connection

__all__ = ["Owner"]


class Owner:
    """Who keeps a connection while it carries nothing: a pool."""

    __slots__ = ()

    def release(self, connection: Connection) -> None:
        """It is free again."""
        raise NotImplementedError

    def gone(self, connection: Connection) -> None:
        """It is closed; told once."""
        raise NotImplementedError

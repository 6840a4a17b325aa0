"""A reply as its caller reads it, and the lease of the connection it comes over."""

from __future__ import annotations

from collections.abc import Iterator

from meshsdk.wire.blocking.connection import BlockingConnection
from meshsdk.wire.blocking.gate import Gate
from meshsdk.wire.blocking.stream import DuplexStream, StreamInfo
from meshsdk.wire.lanes import Lane, Lanes
from meshsdk.wire.reply import DISCARD_BYTES, BaseReply

__all__ = ["BlockingLane", "BlockingLanes", "BlockingReply", "Lease"]

BlockingLanes = Lanes[BlockingConnection, Gate]
BlockingLane = Lane[BlockingConnection, Gate]


class Lease:
    """The right to use one connection, taken with the lane's gate passed; given back once."""

    __slots__ = ("_lane", "_lanes", "_over", "connection")

    def __init__(self, lanes: BlockingLanes, lane: BlockingLane) -> None:
        self._lanes = lanes
        self._lane = lane
        self._over = False
        self.connection: BlockingConnection | None = None

    def end(self, good: bool) -> None:
        """Give the connection back: as one that carries another request (`good`), or to be closed."""
        if self._over:
            return
        self._over = True
        lanes, lane, connection = self._lanes, self._lane, self.connection
        rested = False
        try:
            if connection is not None and good:
                connection.rest()
                rested = True
        finally:
            if connection is not None:
                lanes.let_go(lane, connection, rested)
            if lane.gate is not None:
                lane.gate.give_back()
            lanes.leave(lane)
        while (spent := lanes.spent()) is not None:
            spent.close()


class BlockingReply(BaseReply):
    """One reply; iterate it once, for the body."""

    __slots__ = ("_connection", "_duplex", "_lease")

    def __init__(self, connection: BlockingConnection, lease: Lease) -> None:
        super().__init__()
        self._connection = connection
        self._lease: Lease | None = lease
        self._info = StreamInfo(connection)
        self._duplex: DuplexStream | None = None

    def settle(self) -> None:
        """If the last byte is here, the connection is free again, whenever the body is read."""
        if self.complete and self.status != 101:
            self._end(self._connection.reusable)

    def abandon(self) -> None:
        """Nothing more is wanted, or can be had: close the connection."""
        self._end(False)

    def __iter__(self) -> Iterator[bytes]:
        while True:
            if self.pieces:
                yield self.take()
            elif self.complete or self._lease is None:
                return
            else:
                self._more()

    def close(self) -> None:
        """Let go of the connection. What is here of the body is read first, so that it can be used again."""
        if self._duplex is not None:
            self._duplex.close()
        if self._lease is None:
            return
        self.pieces.clear()
        try:
            if self.status != 101:
                self._connection.drain(self, DISCARD_BYTES)
        except BaseException:
            self.abandon()
            raise
        self._end(self.complete and self.status != 101 and self._connection.reusable)

    def _more(self) -> None:
        try:
            self._connection.advance(self)
        except BaseException:
            self.abandon()
            raise
        self.settle()

    def _end(self, good: bool) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.end(good)

    def _upgraded(self) -> DuplexStream | StreamInfo:
        if self._duplex is None and self._lease is not None:
            self._duplex = DuplexStream(self._connection, self.surplus, self.abandon)
        return self._duplex or self._info

"""The engine for threads: finds or opens a connection, sends, waits for the head."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from meshsdk.core.model import Endpoint, Phase, TransportFailure
from meshsdk.wire.blocking.connection import BlockingConnection
from meshsdk.wire.blocking.gate import Gate
from meshsdk.wire.blocking.reply import BlockingLane, BlockingLanes, BlockingReply, Lease
from meshsdk.wire.engine import Bounds, Request
from meshsdk.wire.failures import busy, crowded, late, unconnected
from meshsdk.wire.forks import forget_in_children
from meshsdk.wire.http1 import Head, Limits, write_head
from meshsdk.wire.lanes import Lanes
from meshsdk.wire.pooling import Pooling
from meshsdk.wire.security import PeerRejected, Secure, in_clear
from meshsdk.wire.steps import step

__all__ = ["BlockingEngine"]


class BlockingEngine:
    """Sends from any thread.

    In a forked child the parent's connections are dropped unused, as two processes on one connection would read each
    other's replies.

    Args:
        clock: seconds, monotonic; deadlines are on it.
        limits: what is read of a reply besides its body.
        pooling: how connections are kept.
        secure: how to secure connections to an endpoint; clear text by default.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        limits: Limits | None = None,
        pooling: Pooling | None = None,
        secure: Secure | None = None,
    ) -> None:
        self._clock = clock
        self._limits = limits or Limits()
        self._pooling = pooling or Pooling()
        self._secure = secure or in_clear
        self._lanes: BlockingLanes = Lanes(Gate)
        forget_in_children(self)

    def send(self, endpoint: Endpoint, request: Request, bounds: Bounds) -> BlockingReply:
        """Send `request` to `endpoint` and wait for the reply's head, or all of a short reply.

        Raises:
            TransportFailure: it failed; says how far it got.
            InvalidRequest: it is not valid HTTP/1.1.
        """
        body: Any = request.body  # what it iterates over is of this colour
        length = len(body) if isinstance(body, bytes) else None
        head = write_head(request.method, request.target, request.headers, length)
        if request.extensions and "trace" in request.extensions:
            return self._traced(endpoint, request, head, body, bounds)
        connection, lease = self._take(endpoint, bounds, request.service)
        reply = BlockingReply(connection, lease)
        try:
            connection.exchange(reply, request.method, head, body, bounds)
        except BaseException:
            reply.abandon()
            raise
        reply.settle()
        return reply

    def warm(self, endpoint: Endpoint, count: int, bounds: Bounds, service: str = "") -> None:
        """Open connections ahead, until `count` are open, those in use among them, or as many as are allowed.

        Waits for none that is in use; raises as `send` does.
        """
        leases: list[Lease] = []
        if bounds.max_connections:
            count = min(count, bounds.max_connections)
        try:
            while (lease := self._spare(endpoint, count, bounds, service)) is not None:
                leases.append(lease)
        finally:
            for lease in leases:
                lease.end(good=True)

    def retire(self, gone: Collection[Endpoint], service: str = "") -> None:
        """Let go of the connections to endpoints of a service: close what is idle; what is in flight finishes."""
        self._lanes.retire(gone, service)
        self._close_spent()

    def close(self) -> None:
        """Close every connection, in use or not; a later `send` opens new ones."""
        self._lanes.drain()
        self._close_spent()

    def forget_inherited(self) -> None:
        """In a forked child: let go of the parent's connections without a byte, and without any of its locks."""
        lanes, self._lanes = self._lanes, Lanes(Gate)
        for connection in lanes.inherited():
            connection.drop()

    def _take(
        self, endpoint: Endpoint, bounds: Bounds, service: str, trace: Any = None
    ) -> tuple[BlockingConnection, Lease]:
        """A connection that is open, and the right to use it."""
        lanes = self._lanes
        now = self._clock()
        if bounds.deadline <= now:
            raise TransportFailure(late(Phase.NOT_CONNECTED, in_body=False, overdue=True))
        lane = lanes.enter(endpoint, bounds.max_connections, now, service)
        try:
            if lane.gate is not None and not lane.gate.passes():
                self._wait_at(lane.gate, lane.users, bounds, now)
        except BaseException:
            lanes.leave(lane)
            raise
        lease = Lease(lanes, lane)
        try:
            connection = lease.connection = lanes.reuse(lane)
            if connection is None:
                connection = self._open(lease, lane, bounds, service, trace)
        except BaseException:
            lease.end(good=False)
            raise
        return connection, lease

    def _spare(self, endpoint: Endpoint, count: int, bounds: Bounds, service: str) -> Lease | None:
        """The right to use one more connection, which is open; None where `count` are in use, or all allowed."""
        lanes = self._lanes
        lane = lanes.enter(endpoint, bounds.max_connections, self._clock(), service)
        if lanes.used(lane) >= count or not (lane.gate is None or lane.gate.passes()):
            lanes.leave(lane)
            return None
        lease = Lease(lanes, lane)
        try:
            lease.connection = lanes.reuse(lane) or self._open(lease, lane, bounds, service, None)
        except BaseException:
            lease.end(good=False)
            raise
        return lease

    def _open(self, lease: Lease, lane: BlockingLane, bounds: Bounds, service: str, trace: Any) -> BlockingConnection:
        endpoint = lane.endpoint
        try:
            security = self._secure(endpoint, service)
        except (OSError, PeerRejected) as error:
            raise TransportFailure(unconnected(error)) from error
        connection = BlockingConnection(endpoint, security, self._clock, self._limits, self._pooling)
        self._lanes.opened(lane, connection)
        lease.connection = connection
        if trace is None:
            connection.open(bounds)
        else:
            with step(trace, "connection.connect_tcp", host=endpoint.address, port=endpoint.port):
                connection.open(bounds)
        return connection

    def _wait_at(self, gate: Gate, users: int, bounds: Bounds, now: float) -> None:
        """Wait until one of the connections allowed is free."""
        waiting = users - bounds.max_connections
        if waiting > self._pooling.max_pending:
            raise TransportFailure(crowded(waiting))
        if not gate.waits(min(bounds.deadline - now, bounds.pool)):
            raise TransportFailure(busy(bounds.max_connections))
        if bounds.deadline <= self._clock():
            gate.give_back()
            raise TransportFailure(late(Phase.NOT_CONNECTED, in_body=False, overdue=True))

    def _traced(
        self, endpoint: Endpoint, request: Request, head: Head, body: bytes | Iterable[bytes], bounds: Bounds
    ) -> BlockingReply:
        """Send, telling the `trace` extension of each step; what that raises is the caller's."""
        trace = request.extensions["trace"]
        connection, lease = self._take(endpoint, bounds, request.service, trace)
        reply = BlockingReply(connection, lease)
        try:
            with step(trace, "http11.send_request_headers", method=request.method, target=request.target):
                pass
            with step(trace, "http11.receive_response_headers") as result:
                connection.exchange(reply, request.method, head, body, bounds)
                result["return_value"] = (reply.status, reply.reason, reply.headers)
        except BaseException:
            reply.abandon()
            raise
        reply.settle()
        return reply

    def _close_spent(self) -> None:
        while (connection := self._lanes.spent()) is not None:
            connection.close()

"""One request on its way: the tries, what is kept for another one, and the answer as it comes. Callbacks only.

Rule 1  The exchange decides, as in every driver; nothing here is a task or a future.
Rule 2  What was sent of the body is kept, up to `REPLAY` bytes, as long as another try is possible. Beyond that the try
        that is under way goes on, and only repeating it is lost.
Rule 3  Neither side is read faster than the other takes it: a few hundred KiB lie here each way at most.
Rule 4  However it ends, the exchange hears of it once, the client's connection is told once, and no connection to an
        instance is left behind.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from meshsdk.core.attempt import Attempt, Retry
from meshsdk.core.model import Failure, Phase
from meshsdk.errors import CallError
from meshsdk.wire.aio.connection import Connection
from meshsdk.wire.engine import Bounds
from meshsdk.wire.http1 import Incoming
from meshsdk.wire.http1.body import BodyWriter
from meshsdk.wire.receiver import Receiver
from meshsdk.wire.retry_after import retry_after
from meshsdk.wire.undelivered import SAID, undelivered
from meshsdk_sidecar.proxy.downstream import Downstream
from meshsdk_sidecar.proxy.fields import RequestHead, interim_head, reply_head, trailing, welcomes_more
from meshsdk_sidecar.proxy.joined import Joined
from meshsdk_sidecar.proxy.turn import Turn
from meshsdk_sidecar.proxy.work import settle, status_of

if TYPE_CHECKING:
    from meshsdk.core.cluster import Cluster
    from meshsdk.core.exchange import Exchange
    from meshsdk.core.model import Call
    from meshsdk.server.inbound import ServedRequest
    from meshsdk.wire.aio.pools import Pools
    from meshsdk.wire.http1.requests import Asked

__all__ = ["REPLAY", "Forwarding"]

REPLAY: Final = 64 * 1024


class Forwarding(Receiver):
    """One request from `downstream` to an instance of a service, and the reply back.

    Args:
        downstream: the client's connection.
        asked: the request, the first of its queue.
        head: what is sent of it.
        pools: the connections.
        cluster: the service.
        call: what decisions are made on; its deadline bounds everything.
        served: the request as it was let in; None for one that goes out.
    """

    __slots__ = (
        "_asked",
        "_attempt",
        "_body",
        "_bounds",
        "_call",
        "_cluster",
        "_connection",
        "_continued",
        "_down",
        "_exchange",
        "_head",
        "_keep",
        "_kept",
        "_over",
        "_pause",
        "_pools",
        "_relaying",
        "_sent",
        "_served",
        "_tunnel",
        "_turn",
        "_upload",
    )

    def __init__(  # noqa: PLR0917 - one is made for each request, and names cost
        self,
        downstream: Downstream,
        asked: Asked,
        head: RequestHead,
        pools: Pools,
        cluster: Cluster,
        call: Call,
        served: ServedRequest | None = None,
    ) -> None:
        Incoming.__init__(self)
        self._down = downstream
        self._asked = asked
        self._head = head
        self._pools = pools
        self._cluster = cluster
        self._call = call
        self._served = served
        self._exchange: Exchange = cluster.exchange(call)
        self._connection: Connection | None = None
        self._turn: Turn | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._tunnel: Joined | None = None
        self._kept: list[bytes] | None = []
        self._sent = 0
        self._upload: BodyWriter | None = None
        self._body: BodyWriter | None = None
        self._relaying = self._continued = self._over = self._keep = False

    # --- tries ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the next try."""
        self._pause = None
        try:
            self._attempt: Attempt = self._exchange.begin()
        except CallError as error:
            self._answer(error)
            return
        attempt, cluster = self._attempt, self._cluster
        limit = cluster.plan.limits.max_connections_per_endpoint
        self._bounds = Bounds(
            attempt.deadline,
            attempt.body_deadline,
            attempt.connect_timeout,
            attempt.idle_timeout,
            max_connections=limit,
        )
        pool = self._pools.pool(attempt.endpoint, limit, cluster.service)
        if (connection := pool.take(attempt.started)) is not None:
            self.connected(connection)
        else:
            self._turn = Turn(self, self._bounds)
            pool.enqueue(self._turn)

    def connected(self, connection: Connection) -> None:
        """Send the request, or what is here of it, on a connection that is ours now."""
        self._turn = None
        self._connection = connection
        asked = self._asked
        lines = [self._head.lines]
        for name, value in self._attempt.headers:
            lines.append(b"%b: %b\r\n" % (name, value))
        lines.append(b"\r\n")
        if asked.length:
            self._upload = BodyWriter(asked.length)
            if self._kept:
                lines.append(self._upload.piece(b"".join(self._kept)))
            lines.append(self._piece())
        connection.last = False
        connection.start(self, self._call.method, b"".join(lines), self._bounds, uploading=not asked.complete)

    def _piece(self) -> bytes:
        """What has come of the body and was not sent yet, as it is to be sent."""
        asked, upload = self._asked, self._upload
        assert upload is not None
        data = b""
        if asked.pieces:
            piece = asked.pieces[0] if len(asked.pieces) == 1 else b"".join(asked.pieces)
            asked.pieces.clear()
            self._keep_for_another(piece)
            self._down.taken(len(piece))
            data = upload.piece(piece)
        return data + upload.end(asked.trailers) if asked.complete else data

    def _keep_for_another(self, piece: bytes) -> None:
        self._sent += len(piece)
        if self._kept is None:
            return
        if self._sent > REPLAY:
            self._kept = None
            self._call.replayable = False
        else:
            self._kept.append(piece)

    def _again(self, verdict: Retry) -> None:
        """Throw this try away and make another after a pause."""
        self._forget_reply()
        if verdict.after > 0:
            self._pause = asyncio.get_running_loop().call_later(verdict.after, self.begin)
        else:
            self.begin()

    def _forget_reply(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection.carries(self):
            connection.abandon()
        Incoming.__init__(self)

    # --- what the client's connection calls -----------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether bytes of the answer are out; interim ones leave it open which."""
        return self._relaying

    def more(self) -> None:
        """More of the request's body has come; or of requests behind it."""
        connection = self._connection
        if connection is None or not connection.uploading or not connection.carries(self) or connection.stuck:
            return  # taken when there is a connection that takes it
        data = self._piece()
        if data:
            connection.write(data)
        if self._asked.complete:
            connection.uploaded()

    def hold(self) -> None:
        """The client takes no more for now."""
        if self._connection is not None and self._connection.carries(self):
            self._connection.hold()

    def resume(self) -> None:
        """It takes more again."""
        if self._connection is not None and self._connection.carries(self):
            self._connection.resume()

    def abandon(self) -> None:
        """The client is gone."""
        if self._over:
            return
        self._over = True
        if self._tunnel is not None:
            self._tunnel.abort()
            return
        turn, self._turn = self._turn, None
        connection, self._connection = self._connection, None  # both know us: circles, with the reply in them
        if turn is not None:
            turn.leave()
        if connection is not None and connection.carries(self):
            connection.abandon()
        if self._pause is not None:
            self._pause.cancel()
            self._exchange.give_up()
        else:
            self._exchange.abandon(self._attempt)
        if self._served is not None:
            self._served.flag = self._served.flag or "DC"
            self._served.end()

    # --- what the connection to the instance calls ----------------------------------------------------

    def interim(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """An interim reply has come; clients of HTTP/1.0 know none (RFC 9110, 15.2), and 100 is told once if asked."""
        if self._over or self._asked.version != "1.1":
            return
        if status == 100:
            if self._continued or not self._asked.expects or self._asked.complete:
                return
            self._continued = True
        self._down.transport.write(interim_head(status, headers))

    def progressed(self) -> None:
        """Something of the reply has come."""
        if self._over:
            return
        connection = self._connection
        assert connection is not None
        if self._relaying:
            self._relay(connection)
        elif self.status and not (connection.reader.short and self._asked.complete):
            self._headed(connection)

    def writable(self) -> None:
        """The instance takes more of the request."""
        self.more()

    def failed(self, failure: Failure) -> None:
        """No more will come."""
        self._turn = None
        self._connection = None
        if self._over:
            return
        if self._relaying:
            self._break_off(failure)
            return
        unwritten = failure.phase <= Phase.NOT_WRITTEN
        if self._kept is None and self._sent and unwritten:
            failure.phase = Phase.WRITTEN  # what was taken of the body is gone, and cannot be sent again
        verdict = self._exchange.failed(self._attempt, failure)
        if isinstance(verdict, Retry):
            self._again(verdict)
        else:
            self._answer(self._exchange.error(failure), *(SAID if unwritten and self._served is not None else ()))

    # --- the answer -----------------------------------------------------------------------------------

    def _headed(self, connection: Connection) -> None:
        status = self.status
        if status == 101 and not (self._asked.upgrade and self._asked.complete):
            connection.abort()
            self.failed(Failure(Phase.REPLY_STARTED, "protocol", "the reply is 101, and nobody asked for an upgrade"))
            return
        if status == 503 and self._served is None and (failure := undelivered(self.headers, connection.transport)):
            self._forget_reply()
            self.failed(failure)
            return
        pause = retry_after(self.headers) if status >= 400 else None
        verdict = self._exchange.answered(self._attempt, status, pause)
        if isinstance(verdict, Retry):
            self._again(verdict)
            return
        if status == 101:
            self._upgrade(connection)
            return
        self._relaying = True
        self._kept = None
        down, asked = self._down, self._asked
        goes_on = asked.complete or (welcomes_more(self) and not self._unsent)
        head = reply_head(self, asked, keep=down.keeps and goes_on)
        self._body, self._keep = head.body, head.keeps
        if self.complete and not connection.carries(self):  # the ordinary case: all of it at once
            pieces = self.pieces
            if self._body is not None:
                data = self._body.piece(b"".join(pieces)) + self._body.end(trailing(self.trailers))
                down.transport.write(head.data + data)
            elif asked.method == b"HEAD" or not pieces:
                down.transport.write(head.data)
            else:
                down.transport.writelines((head.data, *pieces))
            self._finish()
            return
        down.transport.write(head.data)
        self._relay(connection)

    @property
    def _unsent(self) -> bool:
        """Whether the client may wait for leave to send its body, and so for ever (RFC 9110, 10.1.1)."""
        return self._asked.expects and not (self._continued or self._sent)

    def _relay(self, connection: Connection) -> None:
        pieces = self.pieces
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._down.transport.write(data if self._body is None else self._body.piece(data))
            if not self.complete:
                connection.taken(len(data))
                if self._down.stuck:
                    connection.hold()
        if self.complete and connection.uploading and self._unsent:
            connection.last = True
            connection.uploaded()  # which ends it, and comes back here
        elif self.complete and not connection.carries(self):
            if self._body is not None:
                self._down.transport.write(self._body.end(trailing(self.trailers)))
            self._finish()

    def _finish(self) -> None:
        """The reply is out."""
        self._over = True
        self._connection = None
        self._exchange.finished(self._attempt)
        self._settle(self.status)
        self._down.done(self._keep)

    def _break_off(self, failure: Failure) -> None:
        """The reply broke in the middle."""
        self._over = True
        self._exchange.finished(self._attempt, failure)
        self._settle(self.status, self._exchange.error(failure))
        self._down.cut()

    def _answer(self, error: CallError, *fields: tuple[bytes, bytes]) -> None:
        """Say why there is no answer from the service."""
        self._over = True
        self._settle(status_of(error), None if self._served is None else error)
        self._down.fail(error, *fields)

    def _settle(self, status: int, error: CallError | None = None) -> None:
        if self._served is not None:
            settle(self._served, status, error)

    # --- upgrades -------------------------------------------------------------------------------------

    def _upgrade(self, connection: Connection) -> None:
        """The instance agreed to speak something else (RFC 9110, 7.8): from here on it is bytes."""
        self._relaying = True
        head = reply_head(self, self._asked, keep=True)
        protocol = next((value for name, value in self.headers if name.lower() == b"upgrade"), self._asked.upgrade)
        lines = head.data[:-2] + b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % protocol
        self._tunnel = Joined(
            self._down,
            connection.transport,
            self._exchange,
            self._attempt,
            watch=self._pools.watch,
            clock=self._pools.clock,
            to_left=lines + self.surplus,
            ended=self._untunnelled,
        )

    def _untunnelled(self, error: CallError | None) -> None:
        self._over = True
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        self._settle(101, error)

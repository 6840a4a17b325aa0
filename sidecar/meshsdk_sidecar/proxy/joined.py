"""A client's connection that became one end of a tunnel: the call that asked for it ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from meshsdk.core.model import Phase
from meshsdk.errors import CallError
from meshsdk.wire.failures import lost
from meshsdk_sidecar.proxy.tunnel import ABORTED, LEFT_LOST, RIGHT_LOST, Tunnel, TunnelEnd

if TYPE_CHECKING:
    from meshsdk.core.attempt import Attempt
    from meshsdk.core.exchange import Exchange
    from meshsdk.wire.aio.watch import Watch
    from meshsdk_sidecar.proxy.downstream import Downstream

__all__ = ["Joined"]


class Joined:
    """Bytes both ways, after an upgrade or CONNECT.

    Args:
        downstream: the client's connection, whose request is answered by `to_left`.
        right: the other one.
        exchange, attempt: the call; its reply's head was reported.
        watch, clock: for bounds.
        to_left: the answer, and what came behind it.
        ended: told once, when it is over, of what broke it.
        right_done: the other end was heard already to send no more.
    """

    __slots__ = ("_attempt", "_downstream", "_ended", "_exchange", "_tunnel")

    def __init__(
        self,
        downstream: Downstream,
        right: asyncio.Transport,
        exchange: Exchange,
        attempt: Attempt,
        *,
        watch: Watch,
        clock: Callable[[], float],
        to_left: bytes,
        ended: Callable[[CallError | None], None],
        right_done: bool = False,
    ) -> None:
        self._downstream = downstream
        self._exchange = exchange
        self._attempt = attempt
        self._ended = ended
        self._tunnel = Tunnel.join(
            downstream.release(),
            right,
            ended=self._over,
            watch=watch,
            clock=clock,
            idle=attempt.idle_timeout,
            to_left=to_left,
            to_right=downstream.reader.surplus,
            right_done=right_done,
        )

    def abort(self) -> None:
        """Break it off."""
        self._tunnel.abort()

    def _over(self, end: TunnelEnd) -> None:
        error: CallError | None = None
        if end.why == RIGHT_LOST:
            failure = lost(Phase.REPLY_STARTED, in_body=True, error=end.error)
            self._exchange.finished(self._attempt, failure)
            error = self._exchange.error(failure)
        elif end.why in {ABORTED, LEFT_LOST}:
            self._exchange.abandon(self._attempt)
        else:
            self._exchange.finished(self._attempt)
        self._ended(error)
        self._downstream.let_go()

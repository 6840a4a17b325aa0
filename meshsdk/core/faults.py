"""Which error a failure becomes: one table, with the time as the second key."""

from __future__ import annotations

from meshsdk.core.model import Failure, Phase
from meshsdk.errors import BadReply, CallError, ConnectFailed, ConnectionLost, DeadlineExceeded

__all__ = ["fault"]

_BY_KIND: dict[str, type[CallError]] = {
    "connect-failure": ConnectFailed,
    "tls": ConnectFailed,
    "reset": ConnectionLost,
    "timeout": DeadlineExceeded,
    "protocol": BadReply,
    "closed": ConnectionLost,
}


def fault(failure: Failure, late: bool) -> type[CallError]:
    """Name the error for `failure`; `late` is whether the attempt's or the call's time was over.

    A connection that took longer than `timeouts.connect` while there was time left is a failed connection, as in
    Envoy (UF); waiting longer than any other limit is DeadlineExceeded (UT). A certificate that was refused when the
    request may have been read is a connection that was lost: nobody may take it for one that was never made.
    """
    if failure.phase == Phase.NOT_CONNECTED and (failure.kind == "closed" or (failure.kind == "timeout" and not late)):
        return ConnectFailed
    if failure.kind == "tls" and failure.phase > Phase.NOT_WRITTEN:
        return ConnectionLost
    return _BY_KIND[failure.kind]

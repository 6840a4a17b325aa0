"""What a send that failed on the wire is told as: one table of words for every engine of ours."""

from __future__ import annotations

import os
import re
import ssl

from meshsdk.core.model import Failure, Phase

__all__ = [
    "PoolTimeout",
    "WriteTimeout",
    "breach",
    "busy",
    "closed",
    "connect_timed_out",
    "crowded",
    "late",
    "lost",
    "refused",
    "stuck",
    "unconnected",
    "words",
]


# RFC 8446, 6.2: what a peer answers to a certificate it does not take, or misses. OpenSSL names alerts by the version
# that brought them, whatever the connection's own.
_REFUSALS = frozenset(
    {
        "access denied",
        "bad certificate",
        "certificate expired",
        "certificate required",
        "certificate revoked",
        "certificate unknown",
        "unknown ca",
        "unsupported certificate",
    }
)
_ALERT = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_ALERT_(\w+)")


def unconnected(error: BaseException) -> Failure:
    """Connecting failed, the TLS handshake and the check of the peer included."""
    if alert := _refusal(error):
        return Failure(Phase.NOT_CONNECTED, "tls", alert, error)
    return Failure(Phase.NOT_CONNECTED, "connect-failure", words(error), error)


def connect_timed_out(seconds: float) -> Failure:
    """Connecting took longer than its own bound, with time left for the try."""
    return Failure(Phase.NOT_CONNECTED, "connect-failure", f"no connection within {seconds:g} s", TimeoutError())


class PoolTimeout(TimeoutError):
    """No connection came free in time."""


class WriteTimeout(TimeoutError):
    """The peer did not read in time."""


def busy(connections: int) -> Failure:
    """Every connection allowed was in use for too long."""
    detail = f"no connection came free; all {connections} allowed to this instance are in use"
    return Failure(Phase.NOT_CONNECTED, "timeout", detail, PoolTimeout())


def crowded(waiting: int) -> Failure:
    """Too many wait for a connection already."""
    detail = f"{waiting} sends wait for a connection to this instance already"
    return Failure(Phase.NOT_CONNECTED, "connect-failure", detail)


def stuck(phase: Phase) -> Failure:
    """The peer did not read what was written, for as long as one write may take."""
    return Failure(phase, "timeout", "the request was not taken in time", WriteTimeout())


def late(phase: Phase, in_body: bool, overdue: bool) -> Failure:
    """Time was over: that of the whole (`overdue`), or that of one wait."""
    if in_body:
        detail = "the reply's body was not complete in time" if overdue else "the reply's body went silent"
    elif phase == Phase.NOT_CONNECTED:
        detail = "no connection in time"
    elif phase == Phase.REPLY_STARTED:
        detail = "the reply's head was not complete in time"
    else:
        detail = "no reply in time"
    return Failure(phase, "timeout", detail, TimeoutError())


def closed(phase: Phase, error: BaseException | None = None) -> Failure:
    """The caller closed the engine, and its calls with it: no instance is to blame."""
    return Failure(phase, "closed", "the engine was closed", error)


def lost(phase: Phase, in_body: bool, error: BaseException | None) -> Failure:
    """The connection ended before the reply did; without `error` the server closed it."""
    how = "closed the connection" if error is None else f"connection broken ({words(error)})"
    if in_body:
        when = "in the middle of the body"
    else:
        when = "in the middle of the head" if phase == Phase.REPLY_STARTED else "before any reply"
    return Failure(phase, "reset", f"{how} {when}", error)


def refused(
    phase: Phase, error: BaseException | None, tls: ssl.SSLObject | ssl.SSLSocket | None, first: bool
) -> Failure | None:
    """The peer refused our certificate before any reply; None where `error` says nothing of the kind.

    In TLS 1.3 a client is done with the handshake before the server has seen its certificate, so the refusal comes as
    an alert after the first request is sent (RFC 8446, 4.4.2 and 6.2). The certificate is looked at before what
    follows it is read, so that request was read by nobody. Later, or where certificates may be asked for after the
    handshake (4.6.2, or a renegotiation of TLS 1.2), that is not known.

    Args:
        phase: how far the request at hand got.
        error: that ended the connection.
        tls: the connection's.
        first: the request is the connection's first.
    """
    alert = _refusal(error)
    if not alert or phase == Phase.REPLY_STARTED:
        return None
    unread = first and tls is not None and _ends_late(tls)
    return Failure(min(phase, Phase.NOT_WRITTEN) if unread else phase, "tls", alert, error)


def _ends_late(tls: ssl.SSLObject | ssl.SSLSocket) -> bool:
    """Whether the server's end of the handshake comes after ours; `version()` says nothing after an alert."""
    cipher = tls.cipher()
    return cipher is not None and cipher[1] == "TLSv1.3" and not tls.context.post_handshake_auth


def _refusal(error: BaseException | None) -> str:
    found = _ALERT.fullmatch(getattr(error, "reason", None) or "") if isinstance(error, ssl.SSLError) else None
    alert = found[1].replace("_", " ").lower() if found else ""
    return f"the peer refused our certificate: alert {alert}" if alert in _REFUSALS else ""


def breach(phase: Phase, error: Exception) -> Failure:
    """What came is no HTTP/1.1."""
    return Failure(phase, "protocol", str(error), error)


def words(error: BaseException) -> str:
    """The error's cause for a person; asyncio has its own texts, which leave out what went wrong."""
    if (
        isinstance(error, OSError)
        and not isinstance(error, ssl.SSLError)
        and error.errno is not None
        and error.errno > 0
    ):
        return os.strerror(error.errno)
    return str(error) or type(error).__name__

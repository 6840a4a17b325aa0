"""The mesh's errors as httpx errors: caught by either name, chosen by one table. For httpx2 there are the same.

meshsdk.DeadlineExceeded       httpx.ReadTimeout, WriteTimeout where the request was not taken, ConnectTimeout where
                               nothing was sent, or PoolTimeout where no connection came free
meshsdk.ConnectFailed          httpx.ConnectError, or ConnectTimeout where connecting took too long, or PoolTimeout
meshsdk.ConnectionLost         httpx.ReadError
meshsdk.BadReply               httpx.RemoteProtocolError
meshsdk.Refused and its kinds  httpx.ConnectError: nothing was sent
InvalidUrl                     httpx.UnsupportedProtocol
InvalidRequest                 httpx.LocalProtocolError

Those for httpx2 are attributes of `library(httpx2).errors`, under the same names.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, TypeVar

import httpx

from meshsdk import errors
from meshsdk.client.rebase import rebased
from meshsdk.core.model import Failure, Phase

__all__ = [
    "BadReply",
    "BreakerOpen",
    "CallFailed",
    "ConnectDeadlineExceeded",
    "ConnectFailed",
    "ConnectTimedOut",
    "ConnectionLost",
    "DeadlineExceeded",
    "EgressDenied",
    "Errors",
    "InvalidRequest",
    "InvalidUrl",
    "NoEndpoint",
    "Overloaded",
    "PoolDeadlineExceeded",
    "PoolTimedOut",
    "RateLimited",
    "UnknownService",
    "WriteDeadlineExceeded",
    "errors_of",
]


class InvalidUrl(errors.MeshError, httpx.UnsupportedProtocol):
    """The URL names nothing that can be called; the message says what to write instead."""


class InvalidRequest(errors.MeshError, httpx.LocalProtocolError):
    """The request is not valid HTTP/1.1; nothing an instance could answer was sent."""


class UnknownService(errors.UnknownService, httpx.ConnectError):
    """`meshsdk.UnknownService` for httpx."""


class NoEndpoint(errors.NoEndpoint, httpx.ConnectError):
    """`meshsdk.NoEndpoint` for httpx."""


class Overloaded(errors.Overloaded, httpx.ConnectError):
    """`meshsdk.Overloaded` for httpx."""


class BreakerOpen(errors.BreakerOpen, httpx.ConnectError):
    """`meshsdk.BreakerOpen` for httpx."""


class RateLimited(errors.RateLimited, httpx.ConnectError):
    """`meshsdk.RateLimited` for httpx."""


class EgressDenied(errors.EgressDenied, httpx.ConnectError):
    """`meshsdk.EgressDenied` for httpx."""


class DeadlineExceeded(errors.DeadlineExceeded, httpx.ReadTimeout):
    """`meshsdk.DeadlineExceeded` for httpx: the request was sent, or partly sent."""


class ConnectDeadlineExceeded(errors.DeadlineExceeded, httpx.ConnectTimeout):
    """`meshsdk.DeadlineExceeded` for httpx: nothing was sent."""


class PoolDeadlineExceeded(errors.DeadlineExceeded, httpx.PoolTimeout):
    """`meshsdk.DeadlineExceeded` for httpx: every connection allowed to the instance was in use."""


class WriteDeadlineExceeded(errors.DeadlineExceeded, httpx.WriteTimeout):
    """`meshsdk.DeadlineExceeded` for httpx: the instance did not take the request."""


class ConnectFailed(errors.ConnectFailed, httpx.ConnectError):
    """`meshsdk.ConnectFailed` for httpx."""


class ConnectTimedOut(errors.ConnectFailed, httpx.ConnectTimeout):
    """`meshsdk.ConnectFailed` for httpx, where connecting took longer than `timeouts.connect`."""


class PoolTimedOut(errors.ConnectFailed, httpx.PoolTimeout):
    """`meshsdk.ConnectFailed` for httpx, where no connection came free within `pool` of the request's own timeout."""


class ConnectionLost(errors.ConnectionLost, httpx.ReadError):
    """`meshsdk.ConnectionLost` for httpx."""


class BadReply(errors.BadReply, httpx.RemoteProtocolError):
    """`meshsdk.BadReply` for httpx."""


class CallFailed(errors.CallError, httpx.TransportError):
    """Any other `meshsdk.CallError` for httpx."""


_TABLE: dict[type[errors.CallError], type[errors.CallError]] = {
    errors.UnknownService: UnknownService,
    errors.NoEndpoint: NoEndpoint,
    errors.Overloaded: Overloaded,
    errors.BreakerOpen: BreakerOpen,
    errors.RateLimited: RateLimited,
    errors.EgressDenied: EgressDenied,
    errors.DeadlineExceeded: DeadlineExceeded,
    errors.ConnectFailed: ConnectFailed,
    errors.ConnectionLost: ConnectionLost,
    errors.BadReply: BadReply,
}


# By the name of the cause too: httpcore has these, and our own engines name theirs alike.
_WAITS: dict[tuple[type[errors.CallError], str], type[errors.CallError]] = {
    (DeadlineExceeded, "PoolTimeout"): PoolDeadlineExceeded,
    (ConnectFailed, "PoolTimeout"): PoolTimedOut,
    (DeadlineExceeded, "WriteTimeout"): WriteDeadlineExceeded,
}

_KINDS: tuple[type[errors.MeshError], ...] = (
    *_TABLE.values(),
    *_WAITS.values(),
    CallFailed,
    ConnectDeadlineExceeded,
    ConnectTimedOut,
    InvalidRequest,
    InvalidUrl,
)

E = TypeVar("E", bound=errors.MeshError)


class Errors:
    """The classes above, made for one library: `errors[DeadlineExceeded]`, or by name, `errors.DeadlineExceeded`."""

    def __init__(self, library: ModuleType) -> None:
        self._kinds = {kind: rebased(kind, library) for kind in _KINDS}

    def __getitem__(self, kind: type[E]) -> type[E]:
        return self._kinds[kind]  # type: ignore[return-value]

    def __getattr__(self, name: str) -> Any:
        for kind in _KINDS:
            if kind.__name__ == name:
                return self._kinds[kind]
        raise AttributeError(f"{name!r} is none of: {', '.join(sorted(kind.__name__ for kind in _KINDS))}")

    def matching(self, error: errors.CallError, request: Any, failure: Failure | None = None) -> errors.CallError:
        """The same error as one that is the library's too, with `.request` set.

        Args:
            error: what the core or discovery raised.
            request: the library's request.
            failure: the last try's, None where nothing was tried.
        """
        kind = self[_kind(error, failure)]
        known = kind.__new__(kind, *error.args)
        known.__dict__.update(error.__dict__, _request=request)
        return known


_made: dict[str, Errors] = {}


def errors_of(library: ModuleType) -> Errors:
    """The errors for httpx or httpx2, made once, also where two threads ask at the same time."""
    name = library.__name__
    return _made.get(name) or _made.setdefault(name, Errors(library))


def __getattr__(name: str) -> Any:
    """Find `httpx2.DeadlineExceeded` for pickle; what was pickled has its library on the other side too."""
    if name == "httpx2":
        return errors_of(importlib.import_module(name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _kind(error: errors.CallError, failure: Failure | None) -> type[errors.CallError]:
    kind = next((_TABLE[base] for base in type(error).__mro__ if base in _TABLE), CallFailed)
    if failure is not None and (waited := _WAITS.get((kind, type(failure.cause).__name__))):
        return waited
    if kind is DeadlineExceeded and (failure is None or failure.phase <= Phase.NOT_WRITTEN):
        return ConnectDeadlineExceeded
    if kind is ConnectFailed and failure is not None and isinstance(failure.cause, TimeoutError):
        return ConnectTimedOut
    return kind

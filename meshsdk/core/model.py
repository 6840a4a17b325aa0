"""The nouns of a call: endpoints, snapshots, the call's facts, how far a failed try got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from meshsdk.core.value import Value

__all__ = ["TLS_META", "Call", "Endpoint", "Failure", "Phase", "Snapshot", "TransportFailure"]

TLS_META: Final = "mesh-tls"
"""In an instance's meta: its port takes mutual TLS, besides clear text (`permissive`) or only (`strict`)."""


class Phase(IntEnum):
    """How far a failed try got. Retry safety is decided from this, never guessed (RFC 9110, 9.2.2)."""

    NOT_CONNECTED = 0
    NOT_WRITTEN = 1
    WRITTEN = 2
    REPLY_STARTED = 3


@dataclass(frozen=True, slots=True)
class Endpoint(Value):
    """One instance of a service that can be called.

    Attributes:
        key: stable across snapshots; state (latency, ejection) is kept by it.
        address: an IP address or host name, without brackets.
        weight: relative share, above 0.
        healthy: the registry's health checks pass or warn.
        limbo: the registry no longer lists it, and it is kept for a while in case that was a mistake.
    """

    key: str
    address: str
    port: int
    weight: float = 1.0
    zone: str = ""
    healthy: bool = True
    limbo: bool = False
    meta: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Snapshot(Value):
    """All endpoints of one service at one moment; swapped whole, never changed.

    Attributes:
        source: where it is from: `consul`, `disk` or `static`.
        problem: why nothing may be called although the registry answered, for the error; empty otherwise.
    """

    service: str
    endpoints: tuple[Endpoint, ...]
    source: str = "static"
    problem: str = ""


@dataclass(slots=True, init=False)
class Call(Value):
    """The facts of one call that decisions need.

    Its `__init__` is written out, as of all that is made for every call: a dataclass writes its own at run time, out of
    reach for compilation, where setting ten fields takes ten times as long (decision 15).

    Attributes:
        idempotent: by method (RFC 9110, 9.2.2) or by an Idempotency-Key.
        replayable: the body can be sent again.
        deadline: absolute, on the core's clock, in seconds; None where the caller has none of its own.
        traceparent: of the request, where it is carried for somebody else; decides nothing, is told in logs.
    """

    method: str
    path: str = "/"
    idempotent: bool = True
    replayable: bool = True
    deadline: float | None = None
    traceparent: bytes = b""

    def __init__(  # noqa: PLR0917 - written out to be compiled (decision 15)
        self,
        method: str,
        path: str = "/",
        idempotent: bool = True,
        replayable: bool = True,
        deadline: float | None = None,
        traceparent: bytes = b"",
    ) -> None:
        self.method = method
        self.path = path
        self.idempotent = idempotent
        self.replayable = replayable
        self.deadline = deadline
        self.traceparent = traceparent


@dataclass(slots=True)
class Failure:
    """A try that brought no reply.

    Attributes:
        kind: `connect-failure`, `tls` (the peer refused our certificate), `reset`, `timeout`, `protocol`,
            `closed` (by the caller itself); the metric's label.
        detail: one line for a person.
        cause: the exception underneath, for `raise … from`.
    """

    phase: Phase
    kind: str
    detail: str = ""
    cause: BaseException | None = None


class TransportFailure(Exception):
    """What an engine raises where a try failed on the wire; drivers hand the `failure` to the exchange."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(f"{failure.kind}: {failure.detail}")

"""What the core tells telemetry: small records, handed to a sink that must not raise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meshsdk.core.model import Call, Endpoint
from meshsdk.core.value import Value

__all__ = ["AttemptEnded", "BreakerMoved", "CallEnded", "Ejected", "Event", "Returned", "Sink"]


@dataclass(slots=True)
class AttemptEnded:
    """One try is over: its reply's head came, it failed, or it was called off.

    A try that brought an ordinary reply is not told here: `CallEnded.answered` speaks of it.

    Attributes:
        outcome: `2xx` … `5xx`, a failure's kind, or `abandoned`.
        decision: what was decided and why: `final:<reason>` or `retry:<reason>`.
        seconds: from the start of the try to the reply's head or the failure.
    """

    service: str
    endpoint: Endpoint
    number: int
    outcome: str
    decision: str
    status: int | None
    seconds: float


@dataclass(slots=True, init=False)
class CallEnded(Value):
    """One call is over: its body ended, it failed, it was refused, or the caller went away.

    Attributes:
        status: the reply's status code, None without a reply.
        flag: Envoy's response flag, empty for an ordinary reply; `DC` where the caller went away.
        reason: why it ended so, a bounded set of words.
        seconds: from the call's start to the end of the body; `head_seconds` to the reply's head.
        endpoint: the last endpoint tried.
        policy: version of the plan that was in force.
        access_log: the plan's setting: `off`, `errors` or `all`.
        answered: `1xx` … `4xx` or `other` where the last try brought an ordinary reply, which no `AttemptEnded` told;
            else empty.
    """

    service: str
    call: Call
    status: int | None
    flag: str
    reason: str
    attempts: int
    seconds: float
    head_seconds: float | None
    endpoint: Endpoint | None
    policy: str
    access_log: str
    answered: str = ""

    def __init__(  # noqa: PLR0917 - written out to be compiled (decision 15)
        self,
        service: str,
        call: Call,
        status: int | None,
        flag: str,
        reason: str,
        attempts: int,
        seconds: float,
        head_seconds: float | None,
        endpoint: Endpoint | None,
        policy: str,
        access_log: str,
        answered: str = "",
    ) -> None:
        self.service = service
        self.call = call
        self.status = status
        self.flag = flag
        self.reason = reason
        self.attempts = attempts
        self.seconds = seconds
        self.head_seconds = head_seconds
        self.endpoint = endpoint
        self.policy = policy
        self.access_log = access_log
        self.answered = answered


@dataclass(slots=True)
class Ejected:
    """Outlier detection set an endpoint aside for `seconds`."""

    service: str
    endpoint: Endpoint
    reason: str
    seconds: float


@dataclass(slots=True)
class Returned:
    """An ejected endpoint passed its probe and is back."""

    service: str
    endpoint: Endpoint


@dataclass(slots=True)
class BreakerMoved:
    """A service's breaker changed its state: `closed`, `open` or `half-open`."""

    service: str
    before: str
    after: str


Event = AttemptEnded | CallEnded | Ejected | Returned | BreakerMoved
Sink = Callable[[Event], None]

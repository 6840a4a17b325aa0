"""One try and the two verdicts on it: `Attempt` is the token that everything taken for a try hangs on."""

from __future__ import annotations

from dataclasses import dataclass

from meshsdk.core.model import Endpoint
from meshsdk.core.state import EndpointState

__all__ = ["Attempt", "Final", "Retry", "Verdict"]


@dataclass(slots=True, eq=False, init=False)
class Attempt:
    """One try: where to send it and how long it may take. All times are absolute on the core's clock.

    Attributes:
        number: 1 for the first try.
        endpoint: where to send it, as the registry described it when the try began.
        state: the live counters of that endpoint.
        deadline: when the reply's head must have come; inf is no limit.
        body_deadline: when the last byte of the body must have come: the call's own deadline.
        connect_timeout: seconds to open a connection; inf is no limit.
        idle_timeout: seconds of silence between two pieces of a body; inf is no limit.
        headers: what to add to the request.
        permit: the breaker's permit; None once its outcome was recorded or it was given back.
        probe: it is the one probe of an endpoint that returns from ejection.
        era: the process generation that took the slot (a forked child gives nothing back for its parent).
        status: of the reply's head; None before it came.
        open: False once the slot was given back.
    """

    number: int
    endpoint: Endpoint
    state: EndpointState
    started: float
    deadline: float
    body_deadline: float
    connect_timeout: float
    idle_timeout: float
    headers: tuple[tuple[bytes, bytes], ...]
    permit: int | None
    probe: bool
    era: int
    status: int | None = None
    open: bool = True

    def __init__(  # noqa: PLR0917 - written out to be compiled (decision 15)
        self,
        number: int,
        endpoint: Endpoint,
        state: EndpointState,
        started: float,
        deadline: float,
        body_deadline: float,
        connect_timeout: float,
        idle_timeout: float,
        headers: tuple[tuple[bytes, bytes], ...],
        permit: int | None,
        probe: bool,
        era: int,
        status: int | None = None,
        open: bool = True,
    ) -> None:
        self.number = number
        self.endpoint = endpoint
        self.state = state
        self.started = started
        self.deadline = deadline
        self.body_deadline = body_deadline
        self.connect_timeout = connect_timeout
        self.idle_timeout = idle_timeout
        self.headers = headers
        self.permit = permit
        self.probe = probe
        self.era = era
        self.status = status
        self.open = open


@dataclass(slots=True)
class Retry:
    """Throw this outcome away, wait `after` seconds, begin again. `reason` is what is being retried."""

    after: float
    reason: str


@dataclass(slots=True)
class Final:
    """Hand this outcome to the caller. `reason` says why no further try is made."""

    reason: str


Verdict = Retry | Final

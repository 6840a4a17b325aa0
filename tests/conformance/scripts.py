"""Outcome scripts and the two drivers they run through; what a run leaves behind is its trace."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from meshsdk.core.attempt import Attempt
from meshsdk.core.model import Failure, Phase
from meshsdk.drive import TransportFailure, adrive, drive
from meshsdk.errors import CallError
from tests.core.world import REFUSED, RESET, SLOW, World

# Seconds a try takes, and how it ends: a status, a status with Retry-After, or a failure.
OUTCOMES: dict[str, tuple[float, int | tuple[int, float] | Failure]] = {
    "ok": (0.01, 200),
    "unavailable": (0.002, 503),
    "later": (0.002, (503, 1.0)),
    "refused": (0.001, REFUSED),
    "reset": (0.3, RESET),
    "late": (5.0, SLOW),
    "unwritten": (0.001, replace(RESET, phase=Phase.NOT_WRITTEN)),
}


class Interrupted(BaseException):
    """Stands for KeyboardInterrupt and for a cancellation that a test throws in by hand."""


@dataclass
class Heard:
    """A reply of a script. `interrupt` raises at one named step."""

    status: int
    retry_after: float | None
    step: Callable[[str], None]
    closed: int = 0

    def close(self) -> None:
        self.closed += 1
        self.step("close")

    async def aclose(self) -> None:
        self.closed += 1
        await asyncio.sleep(0)
        self.step("close")


@dataclass
class Run:
    """One call through one driver.

    Attributes:
        interrupt: the number of the step (send, close, sleep; from 1) at which to raise Interrupted.
    """

    world: World
    script: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    interrupt: int = 0
    steps: list[str] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    replies: list[Heard] = field(default_factory=list)
    result: object = None

    def __post_init__(self) -> None:
        self._outcomes: Iterator[str] = iter(self.script)

    def step(self, name: str) -> None:
        self.steps.append(name)
        if len(self.steps) == self.interrupt:
            raise Interrupted(name)

    def send(self, attempt: Attempt) -> Heard:
        self.attempts.append(attempt)
        self.step("send")
        seconds, outcome = OUTCOMES[next(self._outcomes)]
        self.world.now += seconds
        if isinstance(outcome, Failure):
            raise TransportFailure(outcome)
        status, retry_after = outcome if isinstance(outcome, tuple) else (outcome, None)
        self.replies.append(Heard(status, retry_after, self.step))
        return self.replies[-1]

    async def asend(self, attempt: Attempt) -> Heard:
        await asyncio.sleep(0)
        return self.send(attempt)

    def sleep(self, seconds: float) -> None:
        self.step("sleep")
        self.world.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.sleep(seconds)

    def blocking(self) -> Run:
        exchange = self.world.call(**self.facts)
        try:
            reply, attempt = drive(exchange, self.send, self.sleep)
        except (CallError, Interrupted) as error:
            self.result = error
        else:
            exchange.finished(attempt)
            self.result = reply.status
        return self

    async def awaiting(self) -> Run:
        exchange = self.world.call(**self.facts)
        try:
            reply, attempt = await adrive(exchange, self.asend, self.asleep)
        except (CallError, Interrupted) as error:
            self.result = error
        else:
            exchange.finished(attempt)
            self.result = reply.status
        return self

    def trace(self) -> list[object]:
        """Everything a driver has a say in, comparable between runs."""
        result = (type(self.result), str(self.result)) if isinstance(self.result, BaseException) else self.result
        cause = repr(self.result.__cause__) if isinstance(self.result, BaseException) else None
        tries = [(a.endpoint.key, a.started, a.deadline, a.body_deadline, a.headers, a.open) for a in self.attempts]
        closed = [reply.closed for reply in self.replies]
        states = [(s.inflight, s.consecutive, s.ok, s.total, s.ewma) for s in self.world.cluster.states()]
        return [result, cause, tries, self.steps, closed, self.world.pauses, self.world.events, states]


Through = Callable[[Run], Awaitable[Run] | Run]


async def finish(run: Run, through: Through) -> Run:
    """Run it through either driver."""
    outcome = through(run)
    return await outcome if inspect.isawaitable(outcome) else outcome

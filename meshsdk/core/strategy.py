"""A user's own tenacity `wait` and `stop` objects in place of the plan's backoff; asked only after a failure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import tenacity

from meshsdk.core.model import Failure

__all__ = ["Strategy", "Tried"]

Wait = Callable[[tenacity.RetryCallState], float]
Stop = Callable[[tenacity.RetryCallState], bool]

_RETRYING: Final = tenacity.Retrying()  # tenacity wants an owner for its state; nothing is ever run by it


@dataclass(slots=True)
class Tried:
    """What tenacity's strategies may look at.

    Attributes:
        number: tries made.
        outcome: the last one's status or failure. A failure shows as its cause, or as ConnectionError.
        started, now: when the call began and when the try ended, in seconds on the core's clock.
        idle_for: seconds paused so far.
    """

    number: int
    outcome: int | Failure
    started: float
    now: float
    idle_for: float


@dataclass(frozen=True, slots=True)
class Strategy:
    """tenacity's wait and stop objects, asked with a state filled in from the core's clock.

    Args:
        wait: seconds to pause before the next try; None keeps the plan's backoff.
        stop: True ends the tries; None leaves that to the plan. The plan's own limits hold in any case.
    """

    wait: Wait | None = None
    stop: Stop | None = None

    def pause(self, tried: Tried, planned: float) -> float | None:
        """Seconds to wait before the next try, or None for no further one; raises ValueError for a nonsensical wait.

        What the user's objects raise passes through.
        """
        state = _call_state(tried)
        seconds = planned if self.wait is None else _checked(self.wait(state), self.wait)
        state.upcoming_sleep = seconds  # tenacity's order: stop_before_delay reads it
        if self.stop is not None and self.stop(state):
            return None
        return seconds


def _checked(seconds: float, wait: Wait) -> float:
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise ValueError(f"the retry strategy {wait!r} asks to wait {seconds!r} s; it must return 0 or more seconds")
    return float(seconds)


def _call_state(tried: Tried) -> tenacity.RetryCallState:
    state = tenacity.RetryCallState(_RETRYING, None, (), {})
    state.start_time = tried.started  # tenacity's constructor took its own clock; ours replaces every time it read
    state.attempt_number = tried.number
    state.idle_for = tried.idle_for
    state.outcome = tenacity.Future(tried.number)
    state.outcome_timestamp = tried.now
    if isinstance(tried.outcome, Failure):
        state.outcome.set_exception(tried.outcome.cause or ConnectionError(tried.outcome.detail or tried.outcome.kind))
    else:
        state.outcome.set_result(tried.outcome)
    return state

"""The life of one call: which endpoint, how long, whether again, and what everybody learns from it.

A driver calls `begin`, sends the attempt, and reports how it ended:

    begin ──┬── answered ──┬── Retry: wait `after`, begin again
            │              └── Final: hand the reply over; at its body's end `finished`, or `abandon`
            ├── failed ────┬── Retry
            │              └── Final: raise `error(failure)`
            └── abandon: cancelled, closed, or an error of the driver's own

Rule 1: an attempt is settled exactly once, and a call ends exactly once (one `CallEnded`). A second report is a
RuntimeError: the driver is wrong, and its counts would be too.
Rule 2: latency is known when the head is there, and so is a 5xx; that an answer was good is known at its body's end.
Rule 3: whose fault a timeout is depends on whose time ran out. If it was the caller's own deadline, the endpoint is
not to blame: a caller with 1 ms to spend must not eject healthy endpoints. That it took at least so long is remembered.
Rule 4: events are told after everything is settled, outside of any lock. The try that brings an ordinary reply, as
nearly all do, has no event of its own: `CallEnded` says what came of it.
"""

from __future__ import annotations

import typing
from functools import lru_cache
from math import inf

from meshsdk.core.attempt import Attempt, Final, Retry, Verdict
from meshsdk.core.deadline import EXPECTED_TIMEOUT, envoy_timeout
from meshsdk.core.events import AttemptEnded, CallEnded
from meshsdk.core.faults import fault
from meshsdk.core.model import Call, Failure
from meshsdk.core.retry import backoff, blames, forbidden, penalised
from meshsdk.core.state import EndpointState
from meshsdk.core.strategy import Tried
from meshsdk.core.upstream import Refusal, Slot, Upstream
from meshsdk.errors import CallError, DeadlineExceeded

__all__ = ["Attempt", "Exchange", "Final", "Retry"]

ATTEMPT_COUNT: typing.Final = b"x-envoy-attempt-count"

# A server may ask for any pause; where no deadline bounds it, this does (Envoy's cap for Retry-After, in seconds).
LONGEST_RETRY_AFTER: typing.Final = 300.0

# Timers and clocks round: within this much of the caller's deadline, seconds, a timeout is the caller's.
SLACK: typing.Final = 0.002

_ANSWERED: typing.Final = Final("answered")
_CLASSES: typing.Final = {1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}


class Exchange:
    """One call to one service, under the policy that was in force when it began.

    Args:
        upstream: the service's cluster.
        call: the facts of the call.
    """

    __slots__ = (
        "_answered",
        "_call",
        "_deadline",
        "_ended",
        "_error",
        "_head_at",
        "_idle",
        "_last",
        "_number",
        "_plan",
        "_reason",
        "_started",
        "_tried",
        "_upstream",
    )

    def __init__(self, upstream: Upstream, call: Call) -> None:
        self._upstream = upstream
        self._plan = upstream.plan
        self._call = call
        self._number = 0
        self._tried: tuple[EndpointState, ...] = ()
        self._last: Attempt | None = None
        self._head_at: float | None = None
        self._idle = 0.0
        self._reason = ""
        self._answered = ""
        self._error: type[CallError] | None = None
        self._ended = False

    @property
    def attempts(self) -> int:
        """Tries begun so far."""
        return self._number

    @property
    def reason(self) -> str:
        """Why the call's last outcome is final; empty while it is not."""
        return self._reason

    def begin(self) -> Attempt:
        """Choose an endpoint, not one that was tried while others are left, and take a slot on it.

        Raises DeadlineExceeded, BreakerOpen, Overloaded or NoEndpoint; the call has ended then.
        """
        if self._ended:
            raise RuntimeError(f"the call to {self._upstream.service} has ended; a new one needs a new exchange")
        upstream = self._upstream
        now = upstream.clock()
        if self._last is None:  # time runs from here
            self._started = now
            limit, own = self._plan.timeouts.request, self._call.deadline
            deadline = now + limit if limit else inf
            self._deadline = deadline if own is None or own > deadline else own
        else:
            self._tried += (self._last.state,)
        slot = upstream.admit(self._tried, now) if now < self._deadline else self._too_late(now)
        if isinstance(slot, Refusal):
            raise self._refused(slot, now)
        self._number += 1
        self._last = attempt = self._attempt(slot, now)
        return attempt

    def answered(self, attempt: Attempt, status: int, retry_after: float | None = None) -> Verdict:
        """The reply's head arrived. Final: it is the caller's, and the slot is held until `finished` or `abandon`.

        Args:
            status: its status code.
            retry_after: seconds its Retry-After asks to wait; None without one.
        """
        if not attempt.open or attempt.status is not None:
            raise RuntimeError(_misuse("answered", attempt))
        now = self._upstream.clock()
        attempt.status = status
        good = status < 400 or not penalised(status)
        self._upstream.observe(attempt, now - attempt.started, good, now)
        if good and status not in self._plan.retries.statuses:
            self._head_at = now
            self._reason = "answered"
            self._answered = _CLASSES.get(status // 100, "other")
            return _ANSWERED
        verdict = self._again(attempt, status, now, retry_after)
        if isinstance(verdict, Final):
            self._head_at = now
        self._tell_attempt(attempt, _CLASSES.get(status // 100, "other"), verdict, now - attempt.started)
        return verdict

    def failed(self, attempt: Attempt, failure: Failure) -> Verdict:
        """No reply arrived; the slot is free again. Final: raise `error(failure)` to the caller."""
        if not attempt.open or attempt.status is not None:
            raise RuntimeError(_misuse("failed", attempt))
        now = self._upstream.clock()
        seconds = now - attempt.started
        self._fail(attempt, failure, attempt.deadline, seconds, now)
        verdict = self._decide(failure, now, None)
        self._tell_attempt(attempt, failure.kind, verdict, seconds)
        if isinstance(verdict, Final):
            self._error = fault(failure, now >= attempt.deadline - SLACK)
            self._end(None, self._error.flag, verdict.reason, now)
        return verdict

    def finished(self, attempt: Attempt, failure: Failure | None = None) -> None:
        """The body ended, or broke with `failure`: the slot is free again and the call has ended."""
        if not attempt.open or attempt.status is None:
            raise RuntimeError(_misuse("finished", attempt))
        now = self._upstream.clock()
        if failure is None:
            self._upstream.conclude(attempt, True, now)
            flag = "URX" if self._reason == "attempts-used" and self._number > 1 else ""
            self._end(attempt.status, flag, self._reason, now)
            return
        head_at = now if self._head_at is None else self._head_at
        self._fail(attempt, failure, attempt.body_deadline, head_at - attempt.started, now)
        self._error = fault(failure, now >= attempt.body_deadline - SLACK)
        self._end(attempt.status, self._error.flag, f"body-{failure.kind}", now)

    def abandon(self, attempt: Attempt) -> None:
        """The caller went away, before or after the head: the slot is free again, nobody is blamed."""
        if not attempt.open:
            raise RuntimeError(_misuse("abandon", attempt))
        now = self._upstream.clock()
        if attempt.status is None and now - attempt.started > attempt.state.ewma:
            # That it took at least so long is known. Callers with a timeout of their own would else learn nothing of a
            # slow endpoint, and go on choosing it.
            self._upstream.observe(attempt, now - attempt.started, True, now)
        self._upstream.release(attempt)
        if attempt.status is None:
            self._tell_attempt(attempt, "abandoned", Final("abandoned"), now - attempt.started)
        self._end(attempt.status, "DC", "abandoned", now)

    def give_up(self) -> None:
        """The caller went away between two tries: the call has ended, nothing was held."""
        if self._ended or self._last is None or self._last.open:
            raise RuntimeError(f"give_up: the call to {self._upstream.service} is not between two tries")
        self._end(None, "DC", "abandoned", self._upstream.clock())

    def error(self, failure: Failure) -> CallError:
        """Make what the caller is told of `failure`: after `failed` said Final, or of a body that broke."""
        if self._error is None:
            late = self._upstream.clock() >= self._deadline - SLACK
            return self._make(fault(failure, late), _told(failure), f"body-{failure.kind}")
        return self._make(self._error, _told(failure), self._reason)

    def _too_late(self, now: float) -> Refusal:
        problem = f"the time was over {now - self._started:.3f} s after its start, before try {self._number + 1}"
        return Refusal(DeadlineExceeded, "deadline", problem)

    def _attempt(self, slot: Slot, now: float) -> Attempt:
        state, permit, probe, era = slot
        number, timeouts = self._number, self._plan.timeouts
        deadline = self._deadline
        left = deadline - now
        if timeouts.attempt and timeouts.attempt < left:
            deadline = now + timeouts.attempt
            headers = _full_time(timeouts.attempt)
        else:
            headers = ((EXPECTED_TIMEOUT, envoy_timeout(left)),) if left != inf else ()
        if number > 1:
            headers += ((ATTEMPT_COUNT, b"%d" % number),)
        return Attempt(
            number,
            state.endpoint,
            state,
            now,
            deadline,
            self._deadline,
            timeouts.connect or inf,
            timeouts.idle or inf,
            headers,
            permit,
            probe,
            era,
        )

    def _again(self, attempt: Attempt, status: int, now: float, retry_after: float | None) -> Verdict:
        """Decide on a reply that may be thrown away; Retry gives its slot back."""
        if blames(status):
            self._upstream.record(attempt, False, now, f"status {status}")
        try:
            verdict = self._decide(status, now, retry_after)
        except BaseException:
            self._upstream.conclude(attempt, True, now)
            raise
        if isinstance(verdict, Retry):
            self._upstream.conclude(attempt, True, now)
        return verdict

    def _decide(self, outcome: int | Failure, now: float, retry_after: float | None) -> Verdict:
        """Whether again; the budget is withdrawn here, so that a retry holds it while it pauses."""
        retries = self._plan.retries
        reason = forbidden(retries, self._call, self._number, outcome)
        pause = None if reason else self._pause(outcome, now)
        if reason or pause is None:
            return self._final(reason or "stopped")
        if retry_after is not None and retry_after > pause:
            if retry_after > LONGEST_RETRY_AFTER or now + retry_after >= self._deadline:
                return self._final("retry-after-past-deadline")
            pause = retry_after
        if now + pause >= self._deadline:
            return self._final("deadline")
        if self._upstream.breaker.refuses(now + pause):
            return self._final("breaker-open")
        if not self._upstream.withdraw(now):
            return self._final("budget-empty")
        self._idle += pause
        return Retry(pause, outcome.kind if isinstance(outcome, Failure) else f"status-{outcome}")

    def _pause(self, outcome: int | Failure, now: float) -> float | None:
        pause = backoff(self._plan.retries, self._number, self._upstream.rng)
        strategy = self._upstream.strategy
        if strategy is None:
            return pause
        try:
            return strategy.pause(Tried(self._number, outcome, self._started, now, self._idle), pause)
        except BaseException:  # the user's own object raised: nobody will report on this call any more
            self._end(None, "DC", "strategy-failed", now)
            raise

    def _final(self, reason: str) -> Final:
        self._reason = reason
        return Final(reason)

    def _fail(self, attempt: Attempt, failure: Failure, limit: float, seconds: float, now: float) -> None:
        """End an attempt that failed; if the caller ended it, by closing its client or because `limit` was its own
        deadline, only the time it took is learned.
        """
        own = self._call.deadline
        over = failure.kind == "timeout" and own is not None and limit >= own and now >= own - SLACK
        if over or failure.kind == "closed":
            if seconds > attempt.state.ewma:
                self._upstream.observe(attempt, seconds, True, now)
            self._upstream.release(attempt)
            return
        self._upstream.observe(attempt, seconds, False, now)
        self._upstream.conclude(attempt, False, now, failure.kind)

    def _refused(self, refusal: Refusal, now: float) -> CallError:
        self._reason = refusal.reason
        self._end(None, refusal.error.flag, refusal.reason, now)
        return self._make(refusal.error, refusal.problem, refusal.reason)

    def _make(self, kind: type[CallError], problem: str, reason: str) -> CallError:
        return kind(
            problem,
            service=self._upstream.service,
            endpoint=str(self._last.endpoint) if self._last else None,
            attempts=self._number,
            reason=reason,
            policy=self._plan.version,
        )

    def _tell_attempt(self, attempt: Attempt, outcome: str, verdict: Verdict, seconds: float) -> None:
        kind = "final:" if isinstance(verdict, Final) else "retry:"
        decision = kind + verdict.reason
        service = self._upstream.service
        self._upstream.sink(
            AttemptEnded(service, attempt.endpoint, attempt.number, outcome, decision, attempt.status, seconds)
        )

    def _end(self, status: int | None, flag: str, reason: str, now: float) -> None:
        self._ended = True
        self._reason = reason
        upstream, started, head_at, last, plan = self._upstream, self._started, self._head_at, self._last, self._plan
        upstream.sink(
            CallEnded(
                upstream.service,
                self._call,
                status,
                flag,
                reason,
                self._number,
                now - started,
                None if head_at is None else head_at - started,
                None if last is None else last.endpoint,
                plan.version,
                plan.access_log,
                self._answered,
            )
        )


@lru_cache(maxsize=64)
def _full_time(seconds: float) -> tuple[tuple[bytes, bytes], ...]:
    """The header of most attempts: they have all the time their policy gives one."""
    return ((EXPECTED_TIMEOUT, envoy_timeout(seconds)),)


def _told(failure: Failure) -> str:
    return f"{failure.kind}: {failure.detail}" if failure.detail else failure.kind


def _misuse(verb: str, attempt: Attempt) -> str:
    where = "has ended" if not attempt.open else "has no reply yet" if attempt.status is None else "has its reply"
    return f"{verb}: try {attempt.number} to {attempt.endpoint} {where}; each try is reported once, in order"

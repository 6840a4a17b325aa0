"""Circuit breaker of one service: pybreaker's circuit (states, listeners, storage) behind `admit` and `record`.

Rule 1: no lock is held while a call is under way; `admit` comes before it, one of `record` and `release` after it.
Rule 2: time is our argument. pybreaker reads the wall clock in its open state, so its open state is never asked.
Rule 3: a permit is the number of the state it was given in; the outcome of a call admitted in an earlier state says
nothing about the present one and is dropped.
Rule 4: cancellation is `release`: neither success nor failure, as nobody knows what would have come.

pybreaker's own `call` keeps its lock across the call, counts cancellation as failure and lets every probe through.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import NoReturn

import pybreaker

from meshsdk.core.plan import Breaker as Plan

__all__ = ["Breaker"]


class _Failed(Exception):
    """What the circuit's listeners are given as the failure."""


def _fail(what: str) -> NoReturn:
    raise _Failed(what)


def _succeed() -> None:
    return


class Breaker:
    """Counts failures in a row over a whole service and stops calls to it for a while.

    Attributes:
        circuit: the real `pybreaker.CircuitBreaker`. Add listeners to it, read its storage, `open()` or `close()` it by
            hand. Its listeners hear every failure, every state change, and the successes that change something.
        moves: state changes `(before, after)` nobody was told of yet; the cluster takes them.
        epoch: the number of the present state. Whoever reads it first, and `closed` after it, has what `admit` gives.
        closed: calls pass.
        calm: closed, and no failure since the last success: one more success changes nothing.
    """

    __slots__ = (
        "_lock",
        "_opened_at",
        "_plan",
        "_probes",
        "_storage",
        "calm",
        "circuit",
        "closed",
        "epoch",
        "moves",
    )

    def __init__(self, plan: Plan, name: str) -> None:
        self._plan = plan
        self._lock = threading.RLock()  # a listener may call the circuit again from within a state change
        self._storage = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
        self.closed = True  # what the storage says, without its two calls
        self.calm = True
        self.epoch = 0
        self._probes = 0
        self._opened_at: float | None = None
        self.moves: list[tuple[str, str]] = []
        self.circuit = pybreaker.CircuitBreaker(
            state_storage=self._storage, name=name, listeners=[_Moves(self)], throw_new_error_on_trip=False
        )
        self.adopt(plan)

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        return self._storage.state

    @property
    def permits(self) -> int:
        """Probes under way; 0 unless half-open."""
        return self._probes

    def adopt(self, plan: Plan) -> None:
        """Follow other numbers from now on; the state and its counters stay, unless the breaker is turned off."""
        with self._lock:
            self._plan = plan
            self.circuit.fail_max = plan.consecutive_failures
            self.circuit.reset_timeout = plan.open_for
            self.circuit.success_threshold = plan.probes
            if not plan.consecutive_failures and self._storage.state != pybreaker.STATE_CLOSED:
                self.circuit.close()

    def admit(self, now: float) -> int | None:
        """Let one call pass: its permit, or None while calls are stopped."""
        epoch = self.epoch  # read first: a move in between must leave us with the older number
        if self.closed:
            return epoch
        with self._lock:
            if self._storage.state == pybreaker.STATE_OPEN:
                if self._still_open(now):
                    return None
                self.circuit.half_open()
            if self._storage.state == pybreaker.STATE_HALF_OPEN:
                if self._probes >= self._plan.probes:
                    return None
                self._probes += 1
            return self.epoch

    def refuses(self, now: float) -> bool:
        """Whether `admit` would say no, without asking for a permit."""
        if self.closed:
            return False
        with self._lock:
            if self._storage.state == pybreaker.STATE_OPEN:
                return self._opened_at is None or now - self._opened_at < self._plan.open_for
            return self._storage.state == pybreaker.STATE_HALF_OPEN and self._probes >= self._plan.probes

    def record(self, permit: int, ok: bool, now: float, what: str = "") -> None:
        """Count the outcome of a call that `admit` let pass; `what` names a failure to the circuit's listeners."""
        if ok and self.calm:
            return
        with self._lock:
            if permit != self.epoch or self._storage.state == pybreaker.STATE_OPEN:
                return
            self.calm = ok and self.closed
            if self._storage.state == pybreaker.STATE_HALF_OPEN:
                self._probes -= 1
            elif not self._plan.consecutive_failures:
                return
            # The second error is only possible when somebody opens the circuit by hand at this very moment.
            with suppress(_Failed, pybreaker.CircuitBreakerError):
                self.circuit.call(_succeed) if ok else self.circuit.call(_fail, what)
            if self._storage.state == pybreaker.STATE_OPEN:
                self._opened_at = now

    def release(self, permit: int) -> None:
        """Give a permit back without an outcome: the call was cancelled or refused elsewhere."""
        if self.closed:
            return
        with self._lock:
            if permit == self.epoch and self._storage.state == pybreaker.STATE_HALF_OPEN:
                self._probes -= 1

    def why(self, now: float) -> str:
        """One line for the person whose call was refused."""
        if self._storage.state == pybreaker.STATE_OPEN:
            left = self._plan.open_for - (now - self._opened_at if self._opened_at is not None else 0.0)
            return f"the circuit breaker is open; the next probe may go in {max(left, 0.0):.2f} s"
        return f"the circuit breaker is half-open and {self._probes} of {self._plan.probes} probes are under way"

    def take_moves(self) -> list[tuple[str, str]]:
        """Hand out the state changes nobody was told of yet."""
        with self._lock:
            moves, self.moves = self.moves, []
            return moves

    def moved(self, before: str, after: str) -> None:
        """The circuit changed its state: permits given in the old one are void."""
        self.closed = self.calm = after == pybreaker.STATE_CLOSED
        self.epoch += 1
        self._probes = 0
        self._opened_at = None
        self.moves.append((before, after))

    def renewed(self) -> Breaker:
        """A closed breaker with new locks and the same numbers and listeners, for a forked child."""
        other = Breaker(self._plan, self.circuit.name or "")
        for listener in self.circuit.listeners:
            if not isinstance(listener, _Moves):
                other.circuit.add_listener(listener)
        return other

    def _still_open(self, now: float) -> bool:
        if self._opened_at is None:  # opened by hand, through `circuit`: it counts from when we noticed
            self._opened_at = now
        return now - self._opened_at < self._plan.open_for


class _Moves(pybreaker.CircuitBreakerListener):
    """Tells the breaker what its circuit does, by whoever's hand."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,  # noqa: ARG002 - the listener's interface
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        self._breaker.moved(old_state.name if old_state else pybreaker.STATE_CLOSED, new_state.name)

"""What is counted, event by event.

Rule 1  On the call's path an event is only put in a queue. `deque.append` is atomic, takes no lock and cannot block, so
        it is safe from any thread, from a signal handler and from a finaliser that runs in the middle of all this.
Rule 2  One thread at a time books the queue into the instruments: whoever finds `BATCH` events waiting and nobody at
        it, or whoever asks. Sums are exact whatever the interleaving, with and without the GIL; a lock around every
        increment would be too, but could not be re-entered from a finaliser, and would be held by nobody after a fork.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Final

from meshsdk.core.events import AttemptEnded, BreakerMoved, CallEnded, Ejected, Event, Returned
from meshsdk.telemetry import catalogue
from meshsdk.telemetry.instruments import SERIES, Counter, Family, Histogram, Labels, Metric, Sample
from meshsdk.telemetry.names import known_method
from meshsdk.telemetry.requests import RequestEnded, RequestStarted

__all__ = ["Counts", "Recorder"]

BATCH: Final = 16  # events booked in one go: some 10 µs, little enough for an event loop
REFUSALS: Final = frozenset(("UH", "UO", "NR", "RL"))
BREAKER_STATES: Final = {"closed": 0, "half-open": 1, "open": 2}

Recorder = Callable[[Metric, Labels, float], None]

# What the labels of a call are made of, and where such calls are counted: labels, durations, tries told with the call.
# Of a request alike: its method, route, status, flag and error.
Kind = tuple[str, str, int | None, str, str]
Counted = tuple[Labels, list[float], list[float] | None]


class Counts:
    """The instruments of one process, and the events that are to be booked into them."""

    def __init__(self) -> None:
        self._queue: deque[Event | RequestStarted | RequestEnded] = deque()
        self._booking = Lock()
        self._recorders: list[tuple[Recorder, Callable[[], bool]]] = []
        self._hearing: list[Recorder] = []  # those of them that are to hear of this batch
        self._calls = Histogram(catalogue.CALL_DURATION)
        self._attempts = Counter(catalogue.ATTEMPTS)
        self._kinds: dict[Kind, Counted] = {}  # of the calls that came before: few, and the same again and again
        self._served: dict[Kind, Counted] = {}  # of requests
        self._going: dict[str, list[float]] = {}  # requests in flight, by each method that is a known one
        self._calls_refused = Counter(catalogue.CALLS_REFUSED)
        self._ejections = Counter(catalogue.EJECTIONS)
        self._returns = Counter(catalogue.RETURNS)
        self._breaker_moves = Counter(catalogue.BREAKER_MOVES)
        self._breaker_state = Counter(catalogue.BREAKER_STATE)
        self._requests = Histogram(catalogue.REQUEST_DURATION)
        self._active = Counter(catalogue.ACTIVE_REQUESTS)
        self._requests_refused = Counter(catalogue.REQUESTS_REFUSED)
        self._requests_denied = Counter(catalogue.REQUESTS_DENIED)

    def sink(self, event: Event | RequestStarted | RequestEnded) -> None:
        """Count one event of the core or of the server; costs an append, and the batch's booking now and then."""
        queue = self._queue
        queue.append(event)
        if len(queue) >= BATCH and self._booking.acquire(blocking=False):
            try:
                self._book()
            finally:
                self._booking.release()

    def record_durations(self, recorder: Recorder, wanted: Callable[[], bool] = lambda: True) -> None:
        """Hand every duration to `recorder` too, while the queue is booked: metric, label values, seconds.

        Args:
            wanted: asked before each batch whether there is anybody to hear of it.
        """
        self._recorders.append((recorder, wanted))

    def families(self) -> list[Family]:
        """Everything counted up to now, those without a series too."""
        with self._booking:
            self._book()
            counted = [instrument.family() for instrument in self._instruments()]
        overflow = [Sample((i.metric.name,), i.overflow) for i in self._instruments() if i.overflow]
        return [*counted, Family(catalogue.OVERFLOW, overflow)]

    def reset(self) -> None:
        """Forget every count and whatever waits."""
        self._queue = deque()
        self._booking = Lock()
        self._kinds, self._served, self._going = {}, {}, {}
        for instrument in self._instruments():
            instrument.clear()

    def _instruments(self) -> tuple[Counter | Histogram, ...]:
        return (
            self._calls,
            self._attempts,
            self._calls_refused,
            self._ejections,
            self._returns,
            self._breaker_moves,
            self._breaker_state,
            self._requests,
            self._active,
            self._requests_refused,
            self._requests_denied,
        )

    def _book(self) -> None:
        queue = self._queue
        self._hearing = [recorder for recorder, wanted in self._recorders if wanted()]
        for _ in range(len(queue)):  # what is appended meanwhile waits for the next batch
            event = queue.popleft()
            if isinstance(event, CallEnded):
                self._book_call(event)
            elif isinstance(event, RequestStarted):
                self._book_start(event)
            elif isinstance(event, RequestEnded):
                self._book_request(event)
            else:
                self._book_rare(event)

    def _book_rare(self, event: AttemptEnded | Ejected | Returned | BreakerMoved) -> None:
        if isinstance(event, AttemptEnded):
            self._attempts.add((event.service, event.outcome, event.decision))
        elif isinstance(event, Ejected):
            self._ejections.add((event.service, event.reason))
        elif isinstance(event, Returned):
            self._returns.add((event.service,))
        else:
            self._breaker_moves.add((event.service, event.after))
            self._breaker_state.set((event.service,), BREAKER_STATES[event.after])

    def _book_call(self, ended: CallEnded) -> None:
        kind = (ended.service, ended.call.method, ended.status, ended.flag, ended.answered)
        counted = self._kinds.get(kind)
        if counted is None:
            counted = self._new_kind(kind)
        labels, durations, tries = counted
        self._calls.put(durations, ended.seconds)
        if tries is not None:
            tries[0] += 1
        if ended.status is None and ended.flag in REFUSALS:
            self._calls_refused.add((ended.service, ended.flag))
        for record in self._hearing:
            record(catalogue.CALL_DURATION, labels, ended.seconds)

    def _new_kind(self, kind: Kind) -> Counted:
        service, method, status, flag, answered = kind
        error = flag or (str(status) if status is not None and status >= 400 else "")
        labels = (service, known_method(method), "" if status is None else str(status), error)
        durations, fresh = self._calls.series(labels)
        self._calls.overflow += not fresh
        tries = None
        if answered:
            tries, room = self._attempts.series((service, answered, "final:answered"))
            self._attempts.overflow += not room
            fresh = fresh and room
        counted = labels, durations, tries
        if fresh and len(self._kinds) < SERIES:  # what counts under `other` is to be asked for, and told, every time
            self._kinds[kind] = counted
        return counted

    def _book_start(self, started: RequestStarted) -> None:
        going = self._going.get(started.method) or self._new_going(started.method)
        going[0] += 1

    def _book_request(self, ended: RequestEnded) -> None:
        going = self._going.get(ended.method) or self._new_going(ended.method)
        going[0] -= 1
        kind = (ended.method, ended.route, ended.status, ended.flag, ended.error_type)
        labels, durations, _ = self._served.get(kind) or self._new_served(kind)
        self._requests.put(durations, ended.seconds)
        if ended.refused:
            self._requests_refused.add((ended.flag,))
        if ended.rule:
            self._requests_denied.add((ended.rule, "denied"))
        if ended.audited:
            self._requests_denied.add((ended.audited, "audited"))
        for record in self._hearing:
            record(catalogue.REQUEST_DURATION, labels, ended.seconds)

    def _new_going(self, method: str) -> list[float]:
        known = known_method(method)
        cell, fresh = self._active.series((known,))
        self._active.overflow += not fresh
        if fresh and known == method:
            self._going[method] = cell
        return cell

    def _new_served(self, kind: Kind) -> Counted:
        method, route, status, flag, error_type = kind
        known = known_method(method)
        error = error_type or flag or (str(status) if status is not None and status >= 500 else "")
        labels = (known, route, "" if status is None else str(status), error)
        durations, fresh = self._requests.series(labels)
        self._requests.overflow += not fresh
        counted = labels, durations, None
        if fresh and known == method and len(self._served) < SERIES:  # as of calls
            self._served[kind] = counted
        return counted

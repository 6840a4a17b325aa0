"""One call: what begin gives, what each report leads to, what is told and what is given back."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from meshsdk.core.attempt import Final, Retry
from meshsdk.core.events import CallEnded
from meshsdk.core.model import Call, Failure, Phase, Snapshot
from meshsdk.errors import (
    BadReply,
    BreakerOpen,
    CallError,
    ConnectFailed,
    ConnectionLost,
    DeadlineExceeded,
    NoEndpoint,
    Overloaded,
)
from tests.core.world import CLOSED, GARBLED, REFUSED, RESET, SLOW, UNTRUSTED, World, endpoints, plan


@pytest.mark.interpreted  # a compiled event takes numbers, and no `approx`
def test_an_ordinary_call_is_told_once_and_leaves_nothing(world: World) -> None:
    exchange = world.call("GET", path="/charge")
    attempt = exchange.begin()
    assert (world.cluster.in_flight, attempt.state.inflight, attempt.number) == (1, 1, 1)
    world.now += 0.02
    assert exchange.answered(attempt, 200) == Final("answered")
    assert world.cluster.in_flight == 1, "the slot is held until the body's end"
    world.now += 0.03
    exchange.finished(attempt)
    assert (world.cluster.in_flight, attempt.state.inflight, attempt.open) == (0, 0, False)
    call = Call("GET", "/charge")
    assert world.events == [
        CallEnded(
            "payments", call, 200, "", "answered", 1, pytest.approx(0.05), pytest.approx(0.02),
            attempt.endpoint, "payments@7", "errors", "2xx",
        ),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("statuses", "told", "answered"),
    [
        ([204], [], "2xx"),
        ([304], [], "3xx"),
        ([404], [], "4xx"),
        ([429], [("4xx", "final:not-retried-status")], ""),
        ([500], [("5xx", "final:not-retried-status")], ""),
        ([503, 200], [("5xx", "retry:status-503")], "2xx"),
        ([503, 503, 503], [("5xx", "retry:status-503")] * 2 + [("5xx", "final:attempts-used")], ""),
    ],
)
def test_every_try_is_told_once_an_ordinary_reply_by_its_call(
    world: World, statuses: list[int], told: list[tuple[str, str]], answered: str
) -> None:
    exchange = world.call()
    for status in statuses:
        exchange.answered(attempt := exchange.begin(), status)
    exchange.finished(attempt)
    assert [(event.outcome, event.decision) for event in world.tried()] == told
    assert [event.answered for event in world.ended()] == [answered]


def test_a_call_begins_with_its_first_try(world: World) -> None:
    exchange = world.call()
    with pytest.raises(RuntimeError, match="not between two tries"):
        exchange.give_up()
    world.now += 3.0
    attempt = exchange.begin()
    assert (attempt.started, attempt.body_deadline) == (103.0, 118.0)


# --- begin -------------------------------------------------------------------------------------------


def test_times_of_an_attempt_come_from_the_plan(world: World) -> None:
    attempt = world.call().begin()
    assert attempt.started == 100.0
    assert attempt.deadline == 105.0
    assert attempt.body_deadline == 115.0
    assert (attempt.connect_timeout, attempt.idle_timeout) == (1.0, 300.0)
    assert attempt.headers == ((b"x-envoy-expected-rq-timeout-ms", b"5000"),)


def test_zero_is_no_limit_and_no_header() -> None:
    world = World(plan(timeouts={"request": 0.0, "attempt": 0.0, "connect": 0.0, "idle": 0.0}))
    attempt = world.call().begin()
    assert {attempt.deadline, attempt.body_deadline, attempt.connect_timeout, attempt.idle_timeout} == {inf}
    assert attempt.headers == ()


@pytest.mark.parametrize(
    ("own", "deadline", "body", "header"),
    [
        (101.0, 101.0, 101.0, b"1000"),
        (108.0, 105.0, 108.0, b"5000"),
        (900.0, 105.0, 115.0, b"5000"),
        (100.0004, 100.0004, 100.0004, b"1"),  # at least one millisecond, or it would mean none
    ],
)
def test_the_callers_deadline_shortens_and_never_extends(
    world: World, own: float, deadline: float, body: float, header: bytes
) -> None:
    attempt = world.call(deadline=own).begin()
    assert (attempt.deadline, attempt.body_deadline) == (deadline, body)
    assert attempt.headers[0][1] == header


def test_a_passed_deadline_ends_the_call_before_anything_is_taken(world: World) -> None:
    exchange = world.call(deadline=99.0)
    with pytest.raises(DeadlineExceeded, match=r"payments: .* before try 1 \(0 attempts.*\[UT\]"):
        exchange.begin()
    assert [(e.flag, e.reason, e.attempts, e.status, e.endpoint) for e in world.ended()] == [
        ("UT", "deadline", 0, None, None)
    ]
    with pytest.raises(RuntimeError, match="has ended"):
        exchange.begin()


def test_the_next_try_goes_elsewhere_and_says_its_number(world: World) -> None:
    exchange = world.call()
    seen = []
    for number in (1, 2, 3):
        attempt = exchange.begin()
        seen.append(attempt.endpoint.key)
        names = [name for name, _ in attempt.headers]
        assert (b"x-envoy-attempt-count" in names) is (number > 1)
        exchange.failed(attempt, REFUSED)
    assert sorted(seen) == ["e0", "e1", "e2"]


def test_with_every_usable_endpoint_tried_an_ejected_one_is_asked_before_any_is_asked_again() -> None:
    """Three instances, one of them set aside and restarted since; the other two have just gone."""
    world = World(plan(balancing={"algorithm": "round-robin", "panic_threshold": 0}))
    back = world.cluster.states()[2]
    for _ in range(5):
        world.cluster._rotation.record(back, False, world.now)
    assert back.ejected_until > world.now
    call = world.call()
    for _ in range(2):
        attempt = call.begin()
        assert attempt.state is not back
        assert isinstance(call.failed(attempt, REFUSED), Retry)
    last = call.begin()
    assert last.state is back
    until = back.ejected_until
    call.answered(last, 200)
    call.finished(last)
    assert back.ejected_until == until  # it was no probe


def test_with_every_endpoint_tried_any_is_a_candidate_again() -> None:
    world = World(count=1)
    exchange = world.call()
    for _ in range(3):
        exchange.failed(exchange.begin(), REFUSED)
    assert [event.number for event in world.tried()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("snapshot", "text"),
    [
        (Snapshot("payments", (), "consul"), r"no instance is registered \(known from: consul\)"),
        (
            Snapshot("payments", endpoints(2, healthy=False)),
            "none of 2 instances can be used: 2 unhealthy, 0 no longer",
        ),
        (Snapshot("payments", endpoints(1, limbo=True)), "none of 1 instance can be used: 0 unhealthy, 1 no longer"),
        (Snapshot("payments", (), "consul", "port 0 in every registration"), "port 0 in every registration"),
    ],
)
def test_no_endpoint_says_why(snapshot: Snapshot, text: str) -> None:
    world = World(plan(balancing={"panic_threshold": 0.0}))
    world.cluster.update(snapshot)
    with pytest.raises(NoEndpoint, match=text) as caught:
        world.call().begin()
    assert caught.value.reason == "no-endpoint"
    assert [event.flag for event in world.ended()] == ["UH"]


def test_max_requests_counts_bodies_too() -> None:
    world = World(plan(limits={"max_requests": 2}))
    first, second = world.call(), world.call()
    one, _ = first.begin(), second.begin()
    first.answered(one, 200)
    with pytest.raises(Overloaded, match=r"2 requests are under way and limits\.max_requests is 2"):
        world.call().begin()
    assert (world.ended()[0].flag, world.ended()[0].reason) == ("UO", "max-requests")
    first.finished(one)
    assert world.call().begin().open


def test_max_pending_counts_what_is_above_an_endpoints_connections() -> None:
    world = World(plan(limits={"max_connections_per_endpoint": 1, "max_pending": 2}), count=2)
    calls = [world.call() for _ in range(4)]
    attempts = [exchange.begin() for exchange in calls]
    assert world.cluster.pending == 2
    with pytest.raises(Overloaded, match=r"all 1 connections to 10\.0\.0\.0:80 are busy, 2 requests wait"):
        world.call().begin()
    assert world.cluster.in_flight == 4
    for exchange, attempt in zip(calls, attempts, strict=True):
        exchange.abandon(attempt)
    assert (world.cluster.pending, world.cluster.in_flight) == (0, 0)


# --- answered ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "call", "reason"),
    [
        (200, {}, "answered"),
        (404, {}, "answered"),
        (500, {}, "not-retried-status"),
        (429, {}, "not-retried-status"),
        (503, {"method": "POST", "idempotent": False}, "not-idempotent"),
        (503, {"replayable": False}, "body-not-replayable"),
    ],
)
def test_final_replies_say_why(world: World, status: int, call: dict[str, object], reason: str) -> None:
    exchange = world.call(**{"method": "GET", **call})
    attempt = exchange.begin()
    assert exchange.answered(attempt, status) == Final(reason)
    assert (exchange.reason, exchange.attempts) == (reason, 1)
    exchange.finished(attempt)
    assert (world.ended()[0].reason, world.ended()[0].flag, world.ended()[0].status) == (reason, "", status)


def test_a_retried_status_gives_its_slot_back_at_once(world: World) -> None:
    exchange = world.call()
    attempt = exchange.begin()
    verdict = exchange.answered(attempt, 503)
    assert isinstance(verdict, Retry)
    assert verdict.reason == "status-503"
    assert 0 <= verdict.after <= 0.025
    assert (attempt.open, world.cluster.in_flight) == (False, 0)
    assert world.ended() == []


def test_the_last_reply_is_handed_over_and_flagged(world: World) -> None:
    exchange = world.call()
    exchange.answered(exchange.begin(), 503)
    exchange.answered(exchange.begin(), 503)
    attempt = exchange.begin()
    assert exchange.answered(attempt, 503) == Final("attempts-used")
    exchange.finished(attempt)
    assert (world.ended()[0].flag, world.ended()[0].status, world.ended()[0].attempts) == ("URX", 503, 3)


def test_retry_after_is_waited_for(world: World) -> None:
    exchange = world.call()
    assert exchange.answered(exchange.begin(), 503, 2.5) == Retry(2.5, "status-503")


def test_a_shorter_retry_after_does_not_shorten_the_backoff(world: World) -> None:
    exchange = world.call()
    verdict = exchange.answered(exchange.begin(), 503, 0.0)
    assert isinstance(verdict, Retry)
    assert verdict.after > 0


@pytest.mark.parametrize(
    ("request_timeout", "own", "asked"), [(15.0, None, 15.0), (15.0, 101.0, 1.0), (0.0, None, 300.1)]
)
def test_retry_after_past_the_deadline_is_final(request_timeout: float, own: float | None, asked: float) -> None:
    world = World(plan(timeouts={"request": request_timeout}))
    exchange = world.call(deadline=own)
    assert exchange.answered(exchange.begin(), 503, asked) == Final("retry-after-past-deadline")


def test_retry_after_beside_an_unretried_status_means_nothing(world: World) -> None:
    exchange = world.call()
    assert exchange.answered(exchange.begin(), 429, 1.0) == Final("not-retried-status")


def test_a_pause_that_ends_at_the_deadline_is_not_begun() -> None:
    world = World(plan(retries={"backoff_base": 0.0}))
    exchange = world.call(deadline=100.5)
    attempt = exchange.begin()
    world.now = 100.5
    assert exchange.answered(attempt, 503) == Final("deadline")


def test_an_unknown_class_of_status_is_told_as_other(world: World) -> None:
    world.serve(999)
    assert world.tried()[0].outcome == "other"
    (ended,) = world.ended()
    assert ended.answered == ""


# --- failed ------------------------------------------------------------------------------------------

POST = {"method": "POST", "idempotent": False}


@pytest.mark.parametrize(
    ("failure", "call", "reason"),
    [
        (REFUSED, POST, "connect-failure"),
        (replace(RESET, phase=Phase.NOT_WRITTEN), POST, "reset"),
        (replace(RESET, phase=Phase.NOT_WRITTEN), {"method": "GET", "replayable": False}, "reset"),
        (RESET, {"method": "GET"}, "reset"),
        (UNTRUSTED, POST, "tls"),
        (replace(UNTRUSTED, phase=Phase.NOT_CONNECTED), POST, "tls"),
        (SLOW, {"method": "GET"}, "timeout"),
        (GARBLED, {"method": "GET"}, "protocol"),
    ],
)
def test_what_is_tried_again(world: World, failure: Failure, call: dict[str, object], reason: str) -> None:
    exchange = world.call(**call)
    verdict = exchange.failed(exchange.begin(), failure)
    assert isinstance(verdict, Retry)
    assert verdict.reason == reason
    assert world.cluster.in_flight == 0


@pytest.mark.parametrize(
    ("failure", "call", "retries", "reason", "error"),
    [
        (RESET, POST, {}, "not-idempotent", ConnectionLost),
        (GARBLED, POST, {}, "not-idempotent", BadReply),
        (SLOW, {"method": "GET", "replayable": False}, {}, "body-not-replayable", DeadlineExceeded),
        (RESET, {"method": "GET"}, {"reset": False}, "not-retried-reset", ConnectionLost),
        (replace(UNTRUSTED, phase=Phase.WRITTEN), {"method": "GET"}, {}, "not-retried-tls", ConnectionLost),
        (CLOSED, {"method": "GET"}, {}, "not-retried-closed", ConnectionLost),
        (replace(CLOSED, phase=Phase.NOT_CONNECTED), {"method": "GET"}, {}, "not-retried-closed", ConnectFailed),
        (UNTRUSTED, {"method": "GET"}, {"connect_failure": False}, "not-retried-tls", ConnectFailed),
        (UNTRUSTED, {"method": "GET"}, {"attempts": 1}, "retries-off", ConnectFailed),
        (SLOW, {"method": "GET"}, {"reset": False}, "not-retried-timeout", DeadlineExceeded),
        (REFUSED, {"method": "GET"}, {"connect_failure": False}, "not-retried-connect-failure", ConnectFailed),
        (REFUSED, {"method": "GET"}, {"attempts": 1}, "retries-off", ConnectFailed),
        (
            REFUSED,
            {"method": "GET"},
            {"budget_ratio": 0.0, "budget_min_per_second": 0.0},
            "budget-empty",
            ConnectFailed,
        ),
    ],
)
def test_what_is_not_and_which_error_says_so(
    failure: Failure, call: dict[str, object], retries: dict[str, object], reason: str, error: type[CallError]
) -> None:
    world = World(plan(retries=retries))
    exchange = world.call(**call)
    attempt = exchange.begin()
    assert exchange.failed(attempt, failure) == Final(reason)
    raised = exchange.error(failure)
    assert type(raised) is error
    assert (raised.reason, raised.attempts, raised.endpoint, raised.policy) == (
        reason, 1, str(attempt.endpoint), "payments@7"
    )  # fmt: skip
    assert failure.detail in str(raised)
    assert [(e.flag, e.reason, e.status, e.head_seconds) for e in world.ended()] == [(error.flag, reason, None, None)]


def test_any_method_lifts_the_rule_of_idempotency() -> None:
    world = World(plan(retries={"any_method": True}))
    exchange = world.call(**POST)
    assert isinstance(exchange.failed(exchange.begin(), RESET), Retry)


def test_a_slow_connect_is_a_failed_connection_unless_the_time_was_over() -> None:
    world = World(plan(retries={"attempts": 1}))
    slow_connect = Failure(Phase.NOT_CONNECTED, "timeout", "no connection in time")
    for elapsed, error in ((1.0, ConnectFailed), (5.0, DeadlineExceeded)):
        exchange = world.call()
        attempt = exchange.begin()
        world.now += elapsed
        exchange.failed(attempt, slow_connect)
        assert type(exchange.error(slow_connect)) is error


def test_a_tripped_breaker_ends_the_tries() -> None:
    world = World(plan(breaker={"consecutive_failures": 1, "open_for": 5.0}))
    exchange = world.call()
    assert exchange.failed(exchange.begin(), RESET) == Final("breaker-open")
    with pytest.raises(BreakerOpen, match=r"the circuit breaker is open; the next probe may go in 5\.00 s"):
        world.call().begin()
    assert world.ended()[-1].flag == "UO"


def test_a_refused_retry_says_what_was_tried_before() -> None:
    world = World(plan(limits={"max_requests": 1}))
    exchange = world.call()
    first = exchange.begin()
    exchange.failed(first, RESET)
    other = world.call()
    other.begin()
    with pytest.raises(Overloaded) as caught:
        exchange.begin()
    assert (caught.value.attempts, caught.value.endpoint) == (1, str(first.endpoint))
    assert world.ended()[0].endpoint == first.endpoint


# --- finished, abandon, give_up ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "flag", "error"),
    [
        (replace(RESET, phase=Phase.REPLY_STARTED), "UC", ConnectionLost),
        (GARBLED, "UPE", BadReply),
        (replace(SLOW, phase=Phase.REPLY_STARTED), "UT", DeadlineExceeded),
    ],
)
def test_a_broken_body_is_a_failure(world: World, failure: Failure, flag: str, error: type[CallError]) -> None:
    exchange = world.call()
    attempt = exchange.begin()
    exchange.answered(attempt, 200)
    before = exchange.error(failure)
    exchange.finished(attempt, failure)
    assert (type(before), type(exchange.error(failure))) == (error, error)
    assert before.reason == exchange.error(failure).reason == f"body-{failure.kind}"
    assert [(e.flag, e.reason, e.status) for e in world.ended()] == [(flag, f"body-{failure.kind}", 200)]
    assert (attempt.state.consecutive, world.cluster.in_flight) == (1, 0)


def test_a_body_that_broke_late_is_not_a_slow_answer(world: World) -> None:
    exchange = world.call()
    attempt = exchange.begin()
    world.now += 0.01
    exchange.answered(attempt, 200)
    world.now += 10.0
    exchange.finished(attempt, replace(RESET, phase=Phase.REPLY_STARTED))
    assert attempt.state.ewma < 1.0


def test_a_5xx_counts_once_even_if_its_body_breaks(world: World) -> None:
    exchange = world.call()
    attempt = exchange.begin()
    exchange.answered(attempt, 500)
    assert attempt.state.consecutive == 1
    exchange.finished(attempt, GARBLED)
    assert attempt.state.consecutive == 1


@pytest.mark.parametrize("status", [None, 200])
def test_abandon_frees_and_blames_nobody(world: World, status: int | None) -> None:
    exchange = world.call()
    attempt = exchange.begin()
    if status is not None:
        exchange.answered(attempt, status)
    learned = attempt.state.ewma
    exchange.abandon(attempt)
    assert (attempt.state.total, attempt.state.consecutive, attempt.state.ewma) == (0, 0, learned)
    assert world.cluster.in_flight == 0
    assert [(e.flag, e.reason, e.status) for e in world.ended()] == [("DC", "abandoned", status)]
    assert [e.outcome for e in world.tried()] == ([] if status else ["abandoned"])
    assert [e.answered for e in world.ended()] == ["2xx" if status else ""]


@pytest.mark.parametrize("status", [None, 200])
def test_a_call_that_its_own_client_closed_blames_nobody(status: int | None) -> None:
    world = World(plan(outlier={"consecutive_failures": 1}, breaker={"consecutive_failures": 1}))
    exchange = world.call()
    attempt = exchange.begin()
    if status is None:
        exchange.failed(attempt, CLOSED)
    else:
        exchange.answered(attempt, status)
        exchange.finished(attempt, replace(CLOSED, phase=Phase.REPLY_STARTED))
    assert (attempt.state.consecutive, world.cluster.breaker_state, world.cluster.in_flight) == (0, "closed", 0)
    assert attempt.state.ejected_until == 0
    assert [(e.flag, e.status) for e in world.ended()] == [("UC", status)]


def test_give_up_between_tries_ends_the_call(world: World) -> None:
    exchange = world.call()
    exchange.failed(exchange.begin(), REFUSED)
    exchange.give_up()
    assert [(e.flag, e.reason, e.attempts) for e in world.ended()] == [("DC", "abandoned", 1)]
    with pytest.raises(RuntimeError, match="not between two tries"):
        exchange.give_up()


def test_reports_out_of_order_are_refused(world: World) -> None:
    exchange = world.call()
    attempt = exchange.begin()
    with pytest.raises(RuntimeError, match="give_up"):
        exchange.give_up()
    with pytest.raises(RuntimeError, match=r"finished: try 1 to 10\.0\.0\.\d:80 has no reply yet"):
        exchange.finished(attempt)
    exchange.answered(attempt, 200)
    with pytest.raises(RuntimeError, match="has its reply"):
        exchange.answered(attempt, 200)
    with pytest.raises(RuntimeError, match="has its reply"):
        exchange.failed(attempt, RESET)
    exchange.finished(attempt)
    for report in (exchange.finished, exchange.abandon):
        with pytest.raises(RuntimeError, match="has ended"):
            report(attempt)
    assert (world.cluster.in_flight, len(world.ended())) == (0, 1)


# --- whose fault -------------------------------------------------------------------------------------


def test_a_caller_with_no_time_does_not_eject_healthy_endpoints() -> None:
    world = World(plan(breaker={"consecutive_failures": 3}))
    for _ in range(50):
        exchange = world.call(deadline=world.now + 0.001)
        attempt = exchange.begin()
        world.now += 0.001
        assert exchange.failed(attempt, SLOW) == Final("deadline")
    assert world.cluster.breaker_state == "closed"
    assert all(s.ejected_until == 0 and s.consecutive == 0 and s.total == 0 for s in world.cluster.states())


def test_a_callers_timeout_still_says_how_slow_it_was() -> None:
    world = World(plan(balancing={"algorithm": "peak-ewma"}), count=1)
    world.serve(seconds=0.01)
    exchange = world.call(deadline=world.now + 2.0)
    attempt = exchange.begin()
    world.now += 2.0
    exchange.failed(attempt, SLOW)
    assert attempt.state.ewma == pytest.approx(2.0)
    before = attempt.state.ewma
    exchange = world.call(deadline=world.now + 0.001)
    attempt = exchange.begin()
    world.now += 0.001
    exchange.failed(attempt, SLOW)
    assert attempt.state.ewma == before, "a short patience must not look like a quick answer"


@pytest.mark.parametrize("own", [None, 200.0])
def test_an_attempt_that_had_its_full_time_is_to_blame(own: float | None) -> None:
    world = World()
    exchange = world.call(deadline=own)
    attempt = exchange.begin()
    world.now = attempt.deadline
    exchange.failed(attempt, SLOW)
    assert attempt.state.consecutive == 1


def test_a_caller_that_gives_up_itself_still_learns_how_slow_it_was() -> None:
    """A caller with a timeout of its own cancels; without this the balancer would go on choosing the slow one."""
    world = World(plan(balancing={"algorithm": "peak-ewma"}), count=1)
    exchange = world.call()
    attempt = exchange.begin()
    world.now += 2.0
    exchange.abandon(attempt)
    assert attempt.state.ewma == pytest.approx(2.0)
    assert attempt.state.consecutive == 0


def test_a_caller_that_gives_up_early_teaches_nothing() -> None:
    world = World(plan(balancing={"algorithm": "peak-ewma"}), count=1)
    exchange = world.call()
    attempt = exchange.begin()
    attempt.state.ewma, attempt.state.ewma_at = 0.5, world.now
    world.now += 0.1
    exchange.abandon(attempt)
    assert attempt.state.ewma == pytest.approx(0.5)


def test_an_endpoint_that_fails_before_the_callers_deadline_is_to_blame(world: World) -> None:
    exchange = world.call(deadline=101.0)
    attempt = exchange.begin()
    world.now += 0.5
    exchange.failed(attempt, RESET)
    assert attempt.state.consecutive == 1


def test_a_body_cut_by_the_callers_deadline_blames_nobody(world: World) -> None:
    exchange = world.call(deadline=101.0)
    attempt = exchange.begin()
    exchange.answered(attempt, 200)
    world.now = 101.0
    exchange.finished(attempt, replace(SLOW, phase=Phase.REPLY_STARTED))
    assert (attempt.state.consecutive, world.cluster.in_flight) == (0, 0)
    assert world.ended()[0].flag == "UT"


def test_a_429_is_penalised_and_not_a_failure() -> None:
    world = World(plan(balancing={"algorithm": "peak-ewma"}), count=1)
    for _ in range(30):
        world.serve(429)
    (state,) = world.cluster.states()
    assert state.faults > 0.9
    assert (state.consecutive, world.cluster.breaker_state) == (0, "closed")


def test_an_exchange_stays_with_its_plan(world: World) -> None:
    exchange = world.call()
    world.cluster.adopt(plan(timeouts={"attempt": 1.0}, retries={"attempts": 1}))
    attempt = exchange.begin()
    assert attempt.deadline == 105.0
    assert isinstance(exchange.failed(attempt, REFUSED), Retry)
    assert world.call().begin().deadline == 101.0

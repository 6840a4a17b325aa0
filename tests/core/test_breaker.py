"""The breaker: its states by our clock, its permits, and pybreaker's circuit as users see it."""

from __future__ import annotations

import pybreaker
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshsdk.core.breaker import Breaker
from meshsdk.core.plan import Breaker as Plan


def tripped(probes: int = 1, now: float = 0.0) -> Breaker:
    breaker = Breaker(Plan(2, 5.0, probes), "payments")
    for _ in range(2):
        permit = breaker.admit(now)
        assert permit is not None
        breaker.record(permit, False, now, "reset")
    assert breaker.state == "open"
    return breaker


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(Plan(2, 5.0, 1), "payments")
    for ok in (False, True, False, True, False):
        breaker.record(breaker.admit(0.0) or 0, ok, 0.0)
    assert breaker.state == "closed"
    breaker.record(breaker.admit(0.0) or 0, False, 0.0)
    assert breaker.state == "open"
    assert breaker.take_moves() == [("closed", "open")]
    assert breaker.take_moves() == []


def test_it_stays_open_for_its_time_by_our_clock() -> None:
    breaker = tripped(now=50.0)
    assert breaker.refuses(54.99)
    assert breaker.admit(54.99) is None
    assert breaker.why(51.0) == "the circuit breaker is open; the next probe may go in 4.00 s"
    assert not breaker.refuses(55.0)
    assert breaker.admit(55.0) is not None
    assert breaker.state == "half-open"


def test_half_open_lets_so_many_probes_through_at_a_time() -> None:
    breaker = tripped(probes=2)
    permits = [breaker.admit(6.0) for _ in range(3)]
    assert [permit is not None for permit in permits] == [True, True, False]
    assert breaker.refuses(6.0)
    assert breaker.why(6.0) == "the circuit breaker is half-open and 2 of 2 probes are under way"
    assert permits[0] is not None
    breaker.release(permits[0])
    assert breaker.permits == 1
    assert breaker.admit(6.0) is not None


def test_so_many_good_probes_close_it() -> None:
    breaker = tripped(probes=2)
    one, two = breaker.admit(6.0), breaker.admit(6.0)
    assert one is not None
    assert two is not None
    breaker.record(one, True, 6.1)
    assert breaker.state == "half-open"
    breaker.record(two, True, 6.2)
    assert (breaker.state, breaker.permits) == ("closed", 0)


def test_one_bad_probe_opens_it_for_another_time() -> None:
    breaker = tripped(probes=2)
    one, two = breaker.admit(6.0), breaker.admit(6.0)
    assert one is not None
    assert two is not None
    breaker.record(one, False, 7.0)
    assert breaker.state == "open"
    breaker.record(two, True, 8.0)
    assert breaker.state == "open", "the other probe was of the state before"
    assert breaker.admit(11.9) is None
    assert breaker.admit(12.0) is not None


@pytest.mark.parametrize("ok", [True, False])
def test_late_results_of_calls_from_before_the_trip_say_nothing(ok: bool) -> None:
    breaker = Breaker(Plan(2, 5.0, 1), "payments")
    late = breaker.admit(0.0)
    assert late is not None
    for _ in range(2):
        breaker.record(late, False, 0.0)
    breaker.record(late, ok, 1.0)
    assert (breaker.state, breaker.admit(4.9)) == ("open", None)
    probe = breaker.admit(5.0)
    assert probe is not None
    breaker.record(late, ok, 5.1)
    assert (breaker.state, breaker.permits) == ("half-open", 1)
    breaker.release(late)
    assert breaker.permits == 1


def test_cancellation_is_neither_success_nor_failure() -> None:
    breaker = Breaker(Plan(2, 5.0, 1), "payments")
    breaker.record(breaker.admit(0.0) or 0, False, 0.0)
    breaker.release(breaker.admit(0.0) or 0)
    assert breaker.circuit.fail_counter == 1, "a success would have cleared it"
    breaker.record(breaker.admit(0.0) or 0, False, 0.0)
    assert breaker.state == "open"


def test_zero_failures_turn_it_off() -> None:
    breaker = Breaker(Plan(0, 5.0, 1), "payments")
    for _ in range(100):
        breaker.record(breaker.admit(0.0) or 0, False, 0.0)
    assert breaker.state == "closed"


def test_turning_it_off_closes_it() -> None:
    breaker = tripped()
    breaker.adopt(Plan(0, 5.0, 1))
    assert breaker.state == "closed"
    assert breaker.admit(0.0) is not None


def test_other_numbers_hold_from_now_on() -> None:
    breaker = tripped()
    breaker.adopt(Plan(2, 1.0, 1))
    assert breaker.state == "open"
    assert breaker.admit(1.0) is not None


def test_a_permit_never_reaches_pybreakers_open_state() -> None:
    """It reads the wall clock there, and would go half-open by that."""
    breaker = tripped()
    breaker.circuit.reset_timeout = 0.0
    breaker.record(breaker.epoch, True, 1.0)
    assert breaker.state == "open"


class Ears(pybreaker.CircuitBreakerListener):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def failure(self, cb: pybreaker.CircuitBreaker, exc: BaseException) -> None:
        self.heard.append(f"failure {exc}")

    def success(self, cb: pybreaker.CircuitBreaker) -> None:
        self.heard.append("success")

    def state_change(self, cb: pybreaker.CircuitBreaker, old_state: object, new_state: object) -> None:
        self.heard.append(f"{getattr(old_state, 'name', None)} to {getattr(new_state, 'name', None)}")


def test_a_users_listener_hears_what_happens() -> None:
    breaker = Breaker(Plan(1, 5.0, 1), "payments")
    ears = Ears()
    breaker.circuit.add_listener(ears)
    breaker.record(breaker.admit(0.0) or 0, False, 0.0, "status 503")
    breaker.record(breaker.admit(5.0) or 0, True, 5.0)
    assert ears.heard == ["failure status 503", "closed to open", "open to half-open", "half-open to closed", "success"]
    assert isinstance(breaker.circuit, pybreaker.CircuitBreaker)
    assert breaker.circuit.name == "payments"


def test_the_circuit_may_be_opened_and_closed_by_hand() -> None:
    breaker = Breaker(Plan(20, 5.0, 1), "payments")
    breaker.circuit.open()
    assert breaker.why(7.0).endswith("5.00 s")
    assert breaker.refuses(1e9), "nobody has looked since: the time begins with the first refusal"
    assert breaker.admit(7.0) is None
    assert breaker.admit(11.9) is None
    assert breaker.admit(12.0) is not None
    breaker.circuit.close()
    assert (breaker.state, breaker.permits) == ("closed", 0)


def test_a_renewed_breaker_is_closed_and_keeps_listeners() -> None:
    breaker = tripped()
    ears = Ears()
    breaker.circuit.add_listener(ears)
    other = breaker.renewed()
    assert (other.state, other.circuit.fail_max) == ("closed", 2)
    assert ears in other.circuit.listeners
    assert len(other.circuit.listeners) == len(breaker.circuit.listeners)


class AnyOrder(RuleBasedStateMachine):
    """Invariant: whatever the order of events, permits out are between 0 and `probes`, and only half-open has any."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(Plan(3, 5.0, 2), "payments")
        self.now = 0.0
        self.out: list[int] = []

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def admit(self) -> None:
        refused = self.breaker.refuses(self.now)
        permit = self.breaker.admit(self.now)
        assert (permit is None) is refused
        if permit is not None:
            self.out.append(permit)

    @rule(index=st.integers(0, 50), ok=st.sampled_from([True, False, None]))
    def end(self, index: int, ok: bool | None) -> None:
        if not self.out:
            return
        permit = self.out.pop(index % len(self.out))
        if ok is None:
            self.breaker.release(permit)
        else:
            self.breaker.record(permit, ok, self.now)

    @rule(opened=st.booleans())
    def by_hand(self, opened: bool) -> None:
        if opened:
            self.breaker.circuit.open()
        else:
            self.breaker.circuit.close()

    @rule(failures=st.sampled_from([0, 1, 3]))
    def adopt(self, failures: int) -> None:
        self.breaker.adopt(Plan(failures, 5.0, 2))

    @invariant()
    def permits_fit_the_state(self) -> None:
        assert 0 <= self.breaker.permits <= 2
        assert self.breaker.state == "half-open" or self.breaker.permits == 0
        assert self.breaker.permits <= len(self.out)


TestAnyOrder = AnyOrder.TestCase

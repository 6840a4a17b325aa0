"""Who is a candidate: health, limbo, ejection, panic; and that the answer is kept until something happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshsdk.core.model import Endpoint
from meshsdk.core.outlier import Ejection, Reinstatement
from meshsdk.core.plan import Outlier
from meshsdk.core.rotation import Rotation
from meshsdk.core.state import EndpointState

OUTLIER = Outlier(5, 0.8, 20, 10.0, 30.0, 300.0, 50.0)


def known(letters: str) -> list[EndpointState]:
    """One endpoint per letter: h healthy, u unhealthy, l in limbo."""
    return [
        EndpointState(Endpoint(f"{letter}{i}", "127.0.0.1", 8000 + i, healthy=letter != "u", limbo=letter == "l"))
        for i, letter in enumerate(letters)
    ]


def names(rotation: Rotation, now: float = 1.0) -> str:
    return " ".join(state.endpoint.key for state in rotation.candidates(now))


def eject(rotation: Rotation, which: int, now: float = 1.0) -> None:
    verdicts = [rotation.record(rotation.states[which], False, now) for _ in range(5)]
    assert isinstance(verdicts[-1], Ejection)


@pytest.mark.parametrize(
    ("letters", "threshold", "expected", "panicking"),
    [
        ("", 50, "", False),
        ("hhh", 50, "h0 h1 h2", False),
        ("hhu", 50, "h0 h1", False),
        ("hhl", 50, "h0 h1", False),
        ("hu", 50, "h0", False),  # 50 % is not below 50 %
        ("huu", 50, "h0 u1 u2", True),
        ("hul", 50, "h0 u1 l2", True),
        ("lll", 50, "l0 l1 l2", True),
        ("uuu", 50, "u0 u1 u2", True),
        ("huu", 0, "h0", False),
        ("uuu", 0, "", False),
        ("lll", 0, "", False),
        ("hhu", 100, "h0 h1 u2", True),
    ],
)
def test_health_limbo_and_panic(letters: str, threshold: float, expected: str, panicking: bool) -> None:
    rotation = Rotation(OUTLIER, threshold, known(letters))
    assert names(rotation) == expected
    assert rotation.panicking is panicking


def test_the_same_tuple_until_something_happens() -> None:
    rotation = Rotation(OUTLIER, 50, known("hhh"))
    first = rotation.candidates(1.0)
    rotation.record(rotation.states[0], False, 1.0)
    rotation.record(rotation.states[0], True, 1.0)
    assert rotation.candidates(1e6) is first


def test_an_ejected_endpoint_leaves_and_comes_back_through_one_probe() -> None:
    rotation = Rotation(OUTLIER, 50, known("hhh"))
    state = rotation.states[0]
    eject(rotation, 0)
    assert names(rotation, 30.9) == "h1 h2"
    assert names(rotation, 31.0) == "h0 h1 h2"
    assert rotation.began(state, 31.0)
    assert names(rotation, 31.0) == "h1 h2"
    rotation.released(state)
    assert rotation.candidates(31.0)[0] is state
    assert rotation.began(state, 31.0)
    assert rotation.record(state, True, 31.1, probe=True) == Reinstatement()
    assert names(rotation, 31.1) == "h0 h1 h2"


def test_ejected_endpoints_count_for_panic() -> None:
    rotation = Rotation(replace(OUTLIER, max_ejected_percent=100), 50, known("hhhh"))
    for which in range(3):
        eject(rotation, which)
    assert names(rotation) == "h0 h1 h2 h3"
    assert rotation.panicking


def test_panic_traffic_to_an_ejected_endpoint_is_no_probe() -> None:
    rotation = Rotation(OUTLIER, 100, known("hh"))
    eject(rotation, 0)
    assert names(rotation) == "h0 h1"
    assert not rotation.began(rotation.states[0], 2.0)


def test_an_ejected_endpoint_that_is_alone_in_the_end_is_called_all_the_same() -> None:
    rotation = Rotation(OUTLIER, 0, known("hh"))
    eject(rotation, 0)
    rotation.update(rotation.states[:1])
    assert names(rotation) == "h0"
    assert not rotation.panicking


def test_one_in_limbo_that_fails_is_believed_to_be_gone() -> None:
    rotation = Rotation(OUTLIER, 50, known("hll"))
    assert names(rotation) == "h0 l1 l2"
    rotation.record(rotation.states[1], False, 1.0)
    assert names(rotation) == "h0 l2"
    rotation.record(rotation.states[1], True, 1.0)
    assert names(rotation) == "h0 l1 l2"


def test_where_all_in_limbo_fail_there_is_nothing_better() -> None:
    rotation = Rotation(OUTLIER, 50, known("l"))
    rotation.record(rotation.states[0], False, 1.0)
    assert names(rotation) == "l0"


def test_passing_after_critical_ends_an_ejection_to_probation() -> None:
    rotation = Rotation(OUTLIER, 50, known("hhh"))
    eject(rotation, 0)
    rotation.revived(rotation.states[0], 2.0)
    assert names(rotation, 2.0) == "h0 h1 h2"
    assert rotation.began(rotation.states[0], 2.0)


@pytest.mark.parametrize(
    ("letters", "ejected", "tried", "expected"),
    [
        ("hhh", [2], [0], "h1"),  # a candidate that is left goes before any that is set aside
        ("hhh", [2], [0, 1], "h2"),
        ("hhhh", [2, 3], [1, 0], "h2 h3"),
        ("hhhh", [2, 3], [1, 0, 2], "h3"),
        ("hhhh", [2, 3], [1, 0, 2, 3], "h0 h1"),
        ("hhhul", [2], [0, 1], "h2"),  # neither the unhealthy one nor the one no longer listed
        ("hhul", [], [0, 1], "h0 h1"),
    ],
)
def test_a_retry_prefers_an_ejected_endpoint_to_one_that_was_tried(
    letters: str, ejected: list[int], tried: list[int], expected: str
) -> None:
    rotation = Rotation(OUTLIER, 0, known(letters))
    for which in ejected:
        eject(rotation, which)
    found = rotation.again([rotation.states[which] for which in tried], 1.0)
    assert " ".join(state.endpoint.key for state in found) == expected


def test_a_retry_keeps_away_from_a_probe_under_way_while_a_candidate_is_left() -> None:
    rotation = Rotation(OUTLIER, 0, known("hhh"))
    h0, h1, h2 = rotation.states
    eject(rotation, 0)
    assert rotation.began(h0, 31.0)
    assert list(rotation.again([h1], 31.0)) == [h2]
    assert list(rotation.again([h1, h2], 31.0)) == [h0]
    assert not rotation.began(h0, 31.0)
    assert rotation.record(h0, True, 31.1) is None  # what is no probe says nothing
    assert rotation.record(h0, True, 31.2, probe=True) == Reinstatement()


class TestAdopt:
    def test_ejections_go_on_under_other_numbers(self) -> None:
        rotation = Rotation(OUTLIER, 50, known("hhh"))
        eject(rotation, 0)
        rotation.adopt(replace(OUTLIER, consecutive_failures=7), 50, 2.0)
        assert names(rotation, 2.0) == "h1 h2"

    def test_turning_detection_off_ends_them(self) -> None:
        rotation = Rotation(OUTLIER, 50, known("hhh"))
        eject(rotation, 0)
        rotation.adopt(replace(OUTLIER, consecutive_failures=0, success_rate=0.0), 50, 2.0)
        assert names(rotation, 2.0) == "h0 h1 h2"

    def test_panic_follows_at_once(self) -> None:
        rotation = Rotation(OUTLIER, 50, known("huu"))
        assert names(rotation) == "h0 u1 u2"
        rotation.adopt(OUTLIER, 0, 2.0)
        assert names(rotation) == "h0"


class AnyOrder(RuleBasedStateMachine):
    """Invariant: while the registry calls one endpoint healthy there is a candidate; a probe is never doubled; the
    kept answer equals one sifted afresh; ejection alone never takes the last healthy endpoint.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 1.0
        self.rotation = Rotation(replace(OUTLIER, max_ejected_percent=100), 0, known("hhhh"))
        self.open: list[tuple[EndpointState, bool]] = []

    @rule(which=st.integers(0, 3))
    def begin(self, which: int) -> None:
        candidates = self.rotation.candidates(self.now)
        if candidates:
            state = candidates[which % len(candidates)]
            self.open.append((state, self.rotation.began(state, self.now)))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 20), ok=st.sampled_from([True, False, False, False]))
    def end(self, which: int, ok: bool) -> None:
        state, probe = self.open.pop(which % len(self.open))
        self.rotation.record(state, ok, self.now, probe)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 20))
    def abandon(self, which: int) -> None:
        state, probe = self.open.pop(which % len(self.open))
        if probe:
            self.rotation.released(state)

    @rule(which=st.integers(0, 3))
    def storm(self, which: int) -> None:
        for _ in range(5):
            self.rotation.record(self.rotation.states[which], False, self.now)

    @rule(seconds=st.sampled_from([0.1, 5.0, 31.0, 301.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(which=st.integers(0, 3), healthy=st.booleans())
    def hear(self, which: int, healthy: bool) -> None:
        state = self.rotation.states[which]
        recovered = healthy and not state.endpoint.healthy
        state.endpoint = replace(state.endpoint, healthy=healthy)
        self.rotation.update(self.rotation.states)
        if recovered and state.ejected_until:
            self.rotation.revived(state, self.now)

    @invariant()
    def someone_is_left(self) -> None:
        assert bool(self.rotation.candidates(self.now)) == any(s.endpoint.healthy for s in self.rotation.states)

    @invariant()
    def probes_are_single(self) -> None:
        for state in self.rotation.states:
            assert sum(probe for other, probe in self.open if other is state) == int(state.probing)

    @invariant()
    def what_is_kept_is_true(self) -> None:
        kept = self.rotation.candidates(self.now)
        self.rotation.update(self.rotation.states)
        assert list(self.rotation.candidates(self.now)) == list(kept)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

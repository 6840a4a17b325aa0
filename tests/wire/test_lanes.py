"""The bookkeeping of connections, without any."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from meshsdk.core.model import Endpoint
from meshsdk.wire.lanes import Lane, Lanes


class Fake:
    def __init__(self) -> None:
        self.expired = False
        self.closed = False

    def has_expired(self) -> bool:
        return self.expired


def endpoint(number: int) -> Endpoint:
    return Endpoint(str(number), "10.0.0.1", 8000 + number)


def close_spent(lanes: Lanes[Fake, int]) -> list[Fake]:
    closed: list[Fake] = []
    while (connection := lanes.spent()) is not None:
        assert not connection.closed, "each is returned once"
        connection.closed = True
        closed.append(connection)
    return closed


def send(lanes: Lanes[Fake, int], number: int = 1, now: float = 0.0, limit: int = 0) -> tuple[Lane[Fake, int], Fake]:
    lane = lanes.enter(endpoint(number), limit, now)
    connection = lanes.reuse(lane)
    if connection is None:
        connection = Fake()
        lanes.opened(lane, connection)
    return lane, connection


def end(lanes: Lanes[Fake, int], lane: Lane[Fake, int], connection: Fake, good: bool = True) -> None:
    lanes.let_go(lane, connection, good)
    lanes.leave(lane)


def test_the_newest_idle_connection_is_used_again() -> None:
    lanes: Lanes[Fake, int] = Lanes(int)
    one, two = send(lanes), send(lanes)
    end(lanes, *one)
    end(lanes, *two)
    assert send(lanes)[1] is two[1]


def test_expired_ones_are_passed_over() -> None:
    lanes: Lanes[Fake, int] = Lanes(int)
    lane, connection = send(lanes)
    end(lanes, lane, connection)
    connection.expired = True
    assert send(lanes)[1] is not connection
    assert close_spent(lanes) == [connection]


def test_how_many_are_in_use_whoever_has_them_now() -> None:
    lanes: Lanes[Fake, int] = Lanes(int)
    (lane, _), second = send(lanes, limit=3), send(lanes, limit=3)
    assert lanes.used(lane) == 2
    end(lanes, *second)
    assert lanes.used(lane) == 1
    heir = lanes.enter(endpoint(1), 2, 0.0)
    assert lanes.used(lane) == lanes.used(heir) == 1


def test_the_gate_is_made_for_the_limit() -> None:
    lanes: Lanes[Fake, int] = Lanes(int)
    assert send(lanes, limit=3)[0].gate == 3
    assert send(lanes, limit=0)[0].gate is None


@pytest.mark.parametrize(("limit", "kept"), [(0, 4), (2, 2), (4, 4), (5, 4)])
def test_another_limit_keeps_the_connections_that_it_allows_the_newest_of_the_idle(limit: int, kept: int) -> None:
    lanes: Lanes[Fake, int] = Lanes(int)
    sent = [send(lanes, limit=6) for _ in range(4)]
    connections = [connection for _, connection in sent]
    for each in sent[:3]:
        end(lanes, *each)
    assert send(lanes, limit=limit)[1] is connections[2]
    assert close_spent(lanes) == connections[: 4 - kept]
    end(lanes, *sent[3])
    assert close_spent(lanes) == []
    assert send(lanes, limit=limit)[1] is connections[3]


def test_what_was_in_use_and_is_too_much_closes_when_it_is_free() -> None:
    lanes: Lanes[Fake, int] = Lanes(int)
    sent = [send(lanes, limit=4) for _ in range(3)]
    lane = lanes.enter(endpoint(1), 2, 0.0)
    for each in sent:
        end(lanes, *each)
    assert close_spent(lanes) == [sent[0][1]]
    assert lane.idle == [sent[1][1], sent[2][1]]


def test_who_waited_at_the_gate_before_takes_what_is_idle_now() -> None:
    lanes: Lanes[Fake, int] = Lanes(int)
    first, waiting = send(lanes, limit=1), lanes.enter(endpoint(1), 1, 0.0)
    lanes.leave(lanes.enter(endpoint(1), 2, 0.0))
    end(lanes, *first)
    last = lanes.enter(endpoint(1), 3, 0.0)
    assert lanes.reuse(waiting) is first[1]
    lanes.retire([endpoint(1)])
    end(lanes, waiting, first[1])
    assert close_spent(lanes) == [first[1]]
    assert not last.open


def test_idle_connections_are_looked_at_twice_a_minute() -> None:
    lanes: Lanes[Fake, int] = Lanes(int)
    send(lanes, 1, now=100.0)
    lane, connection = send(lanes, 2, now=100.0)
    end(lanes, lane, connection)
    connection.expired = True
    send(lanes, 1, now=129.0)
    assert close_spent(lanes) == []
    send(lanes, 1, now=131.0)
    assert close_spent(lanes) == [connection]


def test_a_lane_nobody_uses_is_forgotten_with_its_connections() -> None:
    lanes: Lanes[Fake, int] = Lanes(int)
    lane, connection = send(lanes, 2, now=100.0)
    end(lanes, lane, connection)
    send(lanes, 1, now=159.0)
    assert close_spent(lanes) == []
    send(lanes, 1, now=191.0)
    assert close_spent(lanes) == [connection]
    assert lane.retired


@given(st.booleans())
def test_a_retired_lane_keeps_nothing(good: bool) -> None:
    lanes: Lanes[Fake, int] = Lanes(int)
    lane, connection = send(lanes)
    lanes.retire([endpoint(1)])
    assert close_spent(lanes) == [], "what is in flight finishes"
    end(lanes, lane, connection, good)
    assert close_spent(lanes) == [connection]


def test_draining_ends_what_retired_lanes_still_carry() -> None:
    lanes: Lanes[Fake, int] = Lanes(int)
    _, connection = send(lanes)
    lanes.retire([endpoint(1)])
    lanes.drain()
    assert close_spent(lanes) == [connection]


class Traffic(RuleBasedStateMachine):
    """Invariant: every connection ever opened is in use, idle in a living lane, or returned once to be closed."""

    sends = Bundle("sends")

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[Fake, int] = Lanes(int)
        self.now = 0.0
        self.made: set[Fake] = set()
        self.used: set[Fake] = set()

    @rule(target=sends, number=st.integers(1, 3), limit=st.integers(0, 2), passed=st.floats(0, 40))
    def begin(self, number: int, limit: int, passed: float) -> object:
        self.now += passed
        lane, connection = send(self.lanes, number, self.now, limit)
        assert not connection.closed
        assert connection not in self.used
        self.made.add(connection)
        self.used.add(connection)
        return lane, connection

    @rule(sent=consumes(sends), good=st.booleans())
    def finish(self, sent: tuple[Lane[Fake, int], Fake], good: bool) -> None:
        self.used.discard(sent[1])
        end(self.lanes, *sent, good)
        close_spent(self.lanes)

    @rule(target=sends, number=st.integers(1, 3))
    def retire(self, number: int) -> object:
        self.lanes.retire([endpoint(number)])
        close_spent(self.lanes)
        return multiple()

    @invariant()
    def accounted_for(self) -> None:
        close_spent(self.lanes)
        living = {c for lane in self.lanes._lanes.values() for c in lane.idle}
        assert self.made == {c for c in self.made if c.closed} | living | self.used
        assert not {c for c in self.used if c.closed}
        assert set(self.lanes.inherited()) == living | self.used


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

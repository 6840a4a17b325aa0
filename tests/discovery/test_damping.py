"""What becomes of endpoints that vanish, in virtual time."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshsdk.discovery.damping import Damping
from meshsdk.discovery.endpoints import Listing, read
from meshsdk_registry import Health, Instance

GRACE = 5.0


def listing(**ports: Health | None) -> Listing:
    return read(
        Instance(id=name, service="payments", node="n", address="10.0.0.1", port=int(name[1:]), health=health)
        for name, health in ports.items()
        if health is not None
    )


OK, BAD, REST = Health.PASSING, Health.CRITICAL, Health.MAINTENANCE


@pytest.fixture
def damping() -> Damping:
    return Damping(GRACE)


def seen(damping: Damping) -> dict[int, str]:
    return {e.port: "limbo" if e.limbo else "up" if e.healthy else "down" for e in damping.endpoints}


def test_added_at_once(damping):
    damping.listed(listing(p1=OK), 0)
    damping.listed(listing(p1=OK, p2=OK), 1)
    assert seen(damping) == {1: "up", 2: "up"}
    assert damping.next_expiry == inf


def test_removed_after_the_grace(damping):
    damping.listed(listing(p1=OK, p2=OK), 0)
    damping.listed(listing(p1=OK), 10)
    assert seen(damping) == {1: "up", 2: "limbo"}
    assert (damping.limbo, damping.next_expiry) == (1, 15)
    assert not damping.expire(14.9)
    assert damping.expire(15)
    assert seen(damping) == {1: "up"}
    assert damping.next_expiry == inf


def test_one_that_returns_is_no_longer_in_limbo(damping):
    damping.listed(listing(p1=OK), 0)
    damping.listed(listing(), 1)
    damping.listed(listing(p1=OK), 2)
    assert seen(damping) == {1: "up"}
    assert damping.limbo == 0


@pytest.mark.parametrize("last", [BAD, REST])
def test_one_that_was_not_well_is_dropped_at_once(damping, last):
    damping.listed(listing(p1=OK, p2=OK), 0)
    damping.listed(listing(p1=OK, p2=last), 1)
    damping.listed(listing(p1=OK), 2)
    assert seen(damping) == {1: "up"}


def test_maintenance_takes_effect_at_once_even_from_limbo(damping):
    damping.listed(listing(p1=OK), 0)
    damping.listed(listing(), 1)
    damping.listed(listing(p1=REST), 2)
    assert seen(damping) == {}


def test_an_instance_at_another_port_has_moved(damping):
    at_one = Instance(id="p", service="s", node="n", address="10.0.0.1", port=1)
    damping.listed(read([at_one]), 0)
    damping.listed(read([Instance(id="p", service="s", node="n", address="10.0.0.1", port=2)]), 1)
    assert seen(damping) == {2: "up"}


def test_nothing_expires_while_the_registry_is_away(damping):
    damping.listed(listing(p1=OK), 0)
    damping.listed(listing(), 1)
    damping.lost()
    assert damping.next_expiry == inf
    assert not damping.expire(1000)
    assert seen(damping) == {1: "limbo"}


def test_each_return_of_the_registry_starts_the_wait_over(damping):
    damping.listed(listing(p1=OK), 0)
    damping.listed(listing(), 1)
    damping.lost()
    damping.back(100)
    assert damping.next_expiry == 105
    damping.lost()
    damping.listed(listing(), 200)
    assert damping.next_expiry == 205
    damping.back(203)
    assert damping.next_expiry == 205, "healthy all along: no transition"


def test_a_memory_that_consul_does_not_confirm_goes_to_limbo(damping):
    damping.remember(listing(p1=OK, p2=BAD).endpoints)
    assert seen(damping) == {1: "up", 2: "down"}
    damping.listed(listing(), 1)
    assert seen(damping) == {1: "limbo"}


class Machine(RuleBasedStateMachine):
    """No endpoint that was well leaves without a word before the registry was healthy for the whole grace."""

    def __init__(self):
        super().__init__()
        self.damping, self.now = Damping(GRACE), 0.0
        self.healthy_since: float | None = None
        self.listing: Listing | None = None
        self.last: dict[int, tuple[str, float]] = {}  # what was last listed of each port, and when it vanished

    @rule(ports=st.dictionaries(st.sampled_from(["p1", "p2", "p3"]), st.sampled_from([OK, BAD, REST])))
    def answer(self, ports):
        before = {e.port for e in self.listing.endpoints if e.healthy} if self.listing else set()
        self.listing = listing(**ports)
        self.damping.listed(self.listing, self.now)
        self.healthy_since = self.now if self.healthy_since is None else self.healthy_since
        named = {int(name[1:]) for name in ports}
        for port in before - named:
            self.last[port] = ("vanished", self.now)
        for port in named:
            self.last.pop(port, None)

    @rule()
    def lose(self):
        self.damping.lost()
        self.healthy_since = None

    @rule()
    def back(self):
        self.damping.back(self.now)
        self.healthy_since = self.now if self.healthy_since is None else self.healthy_since

    @rule(seconds=st.sampled_from([0.5, 2.0, 4.9, 5.0]))
    def pass_time(self, seconds):
        self.now += seconds
        self.damping.expire(self.now)

    @invariant()
    def listed_ones_are_there_and_vanished_ones_wait(self):
        found = seen(self.damping)
        for endpoint in self.listing.endpoints if self.listing else ():
            assert found[endpoint.port] == ("up" if endpoint.healthy else "down")
        for port, (_, vanished) in list(self.last.items()):
            if self.healthy_since is None or self.now < max(vanished, self.healthy_since) + GRACE:
                assert found.get(port) == "limbo"
            elif port not in found:
                del self.last[port]
        assert self.damping.limbo == sum(1 for state in found.values() if state == "limbo") <= len(self.last)


TestDampingMachine = Machine.TestCase

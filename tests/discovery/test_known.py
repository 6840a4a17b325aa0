"""One service: what comes from Consul, the disk and policy, in virtual time."""

from __future__ import annotations

import random
from dataclasses import replace
from math import inf

import pytest

from meshsdk.core.cluster import Cluster
from meshsdk.core.model import Endpoint
from meshsdk.discovery.known import KnownService
from meshsdk.discovery.memory import Memory
from meshsdk.policy.effective import DEFAULTS
from meshsdk_registry import Health, Instance

REMEMBERED = Memory((Endpoint("n1/p-9/10.0.0.9:80", "10.0.0.9", 80),), age=60.0)


def instance(number: int, **facts) -> Instance:
    return Instance(id=f"p-{number}", service="payments", node="n1", address=f"10.0.0.{number}", port=80, **facts)


@pytest.fixture
def known(clock) -> KnownService:
    def make(service, plan):
        return Cluster(service, plan, clock=clock, rng=random.Random(1), sink=lambda event: None)

    return KnownService("payments", grace=5.0, clock=clock, make=make)


def addresses(known: KnownService) -> list[str]:
    return [endpoint.address for endpoint in known.cluster.snapshot.endpoints]


def test_a_cluster_needs_endpoints_and_a_plan(known):
    known.listed([instance(1)])
    assert known.cluster is None
    assert not known.gate.is_open
    known.follow(DEFAULTS)
    assert addresses(known) == ["10.0.0.1"]
    assert known.gate.is_open


def test_the_other_way_round(known):
    known.follow(DEFAULTS)
    assert known.cluster is None
    known.listed([])
    assert known.gate.is_open
    assert known.cluster.snapshot.endpoints == ()
    assert known.source == "consul"


def test_a_new_plan_reaches_the_cluster(known):
    known.follow(DEFAULTS)
    known.listed([instance(1)])
    known.follow(replace(DEFAULTS, version="payments@2"))
    assert known.cluster.plan.version == "payments@2"


def test_the_disk_has_its_turn_when_consul_fails(known, clock, caplog):
    known.recall(REMEMBERED)
    known.follow(DEFAULTS)
    assert known.cluster is None, "Consul may still answer"
    known.lost("refused", clock.now)
    assert addresses(known) == ["10.0.0.9"]
    assert (known.source, known.connected, known.error) == ("disk", False, "refused")
    assert "1 endpoints remembered on disk are used, 60 s old" in caplog.text
    clock.now += 10
    assert known.age == pytest.approx(70)


def test_the_disk_has_its_turn_when_consul_keeps_silent(known):
    known.recall(REMEMBERED)
    known.settle(DEFAULTS)
    assert addresses(known) == ["10.0.0.9"]
    assert known.gate.is_open


def test_consul_wins_over_the_disk_once_it_answers(known, clock):
    known.recall(REMEMBERED)
    known.settle(DEFAULTS)
    known.listed([instance(1)])
    assert addresses(known) == ["10.0.0.1", "10.0.0.9"]
    assert [endpoint.limbo for endpoint in known.cluster.snapshot.endpoints] == [False, True]
    clock.now += 5
    known.expire()
    assert addresses(known) == ["10.0.0.1"]
    assert (known.source, known.age) == ("consul", 0.0)


def test_an_answer_makes_the_disk_needless(known, clock):
    known.recall(REMEMBERED)
    known.follow(DEFAULTS)
    known.listed([])
    known.lost("refused", clock.now)
    assert known.cluster.snapshot.endpoints == (), "Consul said there is none"


def test_nothing_known_opens_the_gate_without_a_cluster(known, clock):
    known.lost("refused", clock.now)
    assert not known.gate.is_open
    clock.now += 3
    known.settle(DEFAULTS)
    assert known.gate.is_open
    assert known.cluster is None
    assert (known.failing, known.age, known.source) == (3, inf, "")
    known.listed([instance(1)])
    assert addresses(known) == ["10.0.0.1"], "and goes on to learn"


def test_an_empty_memory_is_none(known):
    known.recall(Memory())
    known.settle(DEFAULTS)
    assert known.cluster is None


def test_lost_keeps_everything_and_counts_the_age(known, clock):
    known.follow(DEFAULTS)
    known.listed([instance(1)])
    assert known.age == 0
    known.lost("refused", clock.now)
    clock.now += 30
    known.lost("another error", clock.now - 30)
    clock.now += 30
    assert (known.age, known.error, addresses(known)) == (60, "another error", ["10.0.0.1"])
    known.back()
    assert (known.age, known.error, known.connected) == (0, "", True)


def test_the_snapshot_says_why_nothing_can_be_called(known, caplog):
    known.follow(DEFAULTS)
    known.listed([replace(instance(1), port=0), instance(2, health=Health.MAINTENANCE)])
    assert known.cluster.snapshot.problem.startswith(
        "no registered instance can be called; 1 in maintenance; p-1 on n1"
    )
    assert caplog.text.count("instance left out: p-1 on n1: port 0") == 1
    known.listed([replace(instance(1), port=0)])
    assert caplog.text.count("instance left out") == 1
    known.listed([instance(1)])
    assert (known.cluster.snapshot.problem, known.refusals) == ("", ())


def test_rest_and_fork_keep_what_is_known(known, clock):
    known.follow(DEFAULTS)
    known.listed([instance(1)])
    gate = known.gate
    clock.now += 5
    known.forked()
    clock.now += 2
    assert (known.connected, known.age, addresses(known)) == (False, 2, ["10.0.0.1"])
    assert known.gate is not gate
    assert known.gate.is_open


def test_a_fork_before_the_first_answer_waits_anew(known):
    known.forked()
    assert not known.gate.is_open
    assert "from nowhere" in repr(known)

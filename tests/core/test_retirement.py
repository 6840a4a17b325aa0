from __future__ import annotations

import random
from dataclasses import replace

import pytest

from meshsdk.core.cluster import Cluster
from meshsdk.core.model import TLS_META, Snapshot
from meshsdk.core.retirement import Retirement
from tests.core.world import PLAN, World, endpoints

FIRST = endpoints(3)


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_due_where_nothing_changes(world: World) -> None:
    retirement = Retirement()
    assert [list(retirement.due(world.cluster, 1)) for _ in range(3)] == [[], [], []]


def test_endpoints_that_are_no_more_and_each_once(world: World) -> None:
    retirement = Retirement()
    retirement.due(world.cluster, 1)
    world.cluster.update(Snapshot("payments", FIRST[1:]))
    assert list(retirement.due(world.cluster, 1)) == [FIRST[0]]
    assert list(retirement.due(world.cluster, 1)) == []


def test_a_new_snapshot_of_the_same_endpoints(world: World) -> None:
    retirement = Retirement()
    retirement.due(world.cluster, 1)
    weighty = tuple(replace(each, weight=7, meta={"zone": "b"}) for each in FIRST)
    world.cluster.update(Snapshot("payments", weighty))
    assert list(retirement.due(world.cluster, 1)) == []


def test_an_endpoint_that_takes_another_kind_of_tls(world: World) -> None:
    retirement = Retirement()
    retirement.due(world.cluster, 1)
    secured = replace(FIRST[1], meta={TLS_META: "strict"})
    world.cluster.update(Snapshot("payments", (FIRST[0], secured, FIRST[2])))
    assert list(retirement.due(world.cluster, 1)) == [FIRST[1]]


def test_another_mode_of_the_policy_ends_them_all(world: World) -> None:
    retirement = Retirement()
    retirement.due(world.cluster, 1)
    world.cluster.adopt(replace(PLAN, tls="strict"))
    world.cluster.update(Snapshot("payments", FIRST[1:]))
    assert list(retirement.due(world.cluster, 1)) == list(FIRST), "those of before, the one that left among them"
    assert list(retirement.due(world.cluster, 1)) == []


def test_another_certificate_of_ours_ends_them_all(world: World) -> None:
    retirement = Retirement()
    retirement.due(world.cluster, 1)
    assert list(retirement.due(world.cluster, 2)) == list(FIRST)
    assert list(retirement.due(world.cluster, 2)) == []


def test_services_and_owners_do_not_see_each_other(world: World) -> None:
    one, other = Retirement(), Retirement()
    stocks = Cluster("stocks", PLAN, clock=lambda: world.now, rng=random.Random(1), sink=world.events.append)
    one.due(world.cluster, 1)
    one.due(stocks, 1)
    other.due(world.cluster, 1)
    assert list(one.due(world.cluster, 2)) == list(FIRST)
    assert list(other.due(world.cluster, 2)) == list(FIRST)

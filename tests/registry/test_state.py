"""Invariant: an index never goes back, moves with each real change and only then, and a reader who saw the index of an
answer sees a higher one as soon as the answer differs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk_registry.agent.bodies import Refused, duration
from meshsdk_registry.agent.catalog import Catalog, Check, Node, Service
from meshsdk_registry.agent.journal import Journal
from meshsdk_registry.agent.keys import Keys, Step
from meshsdk_registry.agent.state import State, Ttl


def service(state: State, **changes) -> Service:
    return Service(state.node, "w1", "web", port=80, **changes)


def ttl_check(state: State, ttl: float = 10, after: float = 0) -> tuple[Check, Ttl]:
    return Check(state.node, "service:w1", service_id="w1", kind="ttl"), Ttl(ttl, None, after)


def status(state: State) -> tuple[str, str]:
    check = state.local_checks()["service:w1"]
    return check.status, check.output


def test_a_ttl_expires_at_its_time_and_not_before():
    state = State()
    state.register(service(state), [ttl_check(state)], now=0)
    state.update_check("service:w1", "passing", "v1", now=1)
    assert state.next_deadline() == 11
    state.expire(10.9)
    assert status(state) == ("passing", "v1")
    state.expire(11)
    assert status(state) == ("critical", "TTL expired (last output before timeout follows): v1")
    assert state.next_deadline() is None


def test_a_critical_service_is_reaped_when_its_time_is_over():
    state = State()
    state.register(service(state), [ttl_check(state, after=60)], now=0)
    state.expire(59)
    assert "w1" in state.local_services()
    assert state.next_deadline() == 60
    state.expire(60)
    assert state.local_services() == {}
    assert state.local_checks() == {}
    with pytest.raises(LookupError, match="does not have associated TTL"):
        state.update_check("service:w1", "passing", "", now=61)


def test_a_heartbeat_saves_from_reaping():
    state = State()
    state.register(service(state), [ttl_check(state, after=60)], now=0)
    state.update_check("service:w1", "passing", "", now=30)
    state.expire(60)
    assert status(state)[0] == "critical"
    state.expire(99)
    assert "w1" in state.local_services()
    state.expire(100 + 20)
    assert state.local_services() == {}


def test_registering_anew_keeps_the_status_and_moves_no_index():
    state = State()
    state.register(service(state), [ttl_check(state)], now=0)
    state.update_check("service:w1", "passing", "v1", now=1)
    index = state.catalog.instances("web")[0]
    state.register(service(state), [ttl_check(state)], now=2)
    assert (status(state), state.catalog.instances("web")[0]) == (("passing", "v1"), index)
    state.register(service(state, tags=("new",)), [ttl_check(state)], now=2)
    assert state.catalog.instances("web")[0] > index


def test_a_node_check_moves_every_service_of_the_node():
    catalog = Catalog(Journal())
    catalog.put_node(Node("n", "10.0.0.1"))
    for name in ("a", "b"):
        catalog.put_service(Service("n", name, name))
    before = catalog.instances("a")[0], catalog.instances("b")[0]
    catalog.put_check(Check("n", "disk", status="warning"))
    assert catalog.instances("a")[0] == catalog.instances("b")[0] > max(before)


def test_the_last_instance_leaves_the_index_of_the_extinction():
    catalog = Catalog(Journal())
    catalog.put_node(Node("n", "10.0.0.1"))
    catalog.put_service(Service("n", "a1", "a"))
    catalog.put_service(Service("n", "a2", "a"))
    catalog.drop_service("n", "a1")
    left, kept = catalog.instances("a")
    assert [one.id for one in kept] == ["a2"]
    catalog.drop_service("n", "a2")
    assert catalog.instances("a") == (left + 1, [])
    catalog.put_service(Service("n", "b1", "b"))
    assert catalog.instances("a") == (left + 1, [])


def test_a_service_renamed_leaves_its_old_name():
    catalog = Catalog(Journal())
    catalog.put_node(Node("n", "10.0.0.1"))
    catalog.put_service(Service("n", "x", "old"))
    catalog.put_service(Service("n", "x", "new"))
    assert catalog.instances("old")[1] == []
    assert [one.id for one in catalog.instances("new")[1]] == ["x"]
    assert catalog.names()[1] == {"new": []}


def test_a_check_without_its_service_is_refused():
    catalog = Catalog(Journal())
    catalog.put_node(Node("n", "10.0.0.1"))
    with pytest.raises(LookupError, match='Missing service registration on node "n"'):
        catalog.put_check(Check("n", "c", service_id="none"))


def test_a_node_goes_with_all_it_has():
    catalog = Catalog(Journal())
    catalog.put_node(Node("n", "10.0.0.1"))
    catalog.put_service(Service("n", "x", "web"))
    catalog.put_check(Check("n", "disk"))
    catalog.drop_node("n")
    assert (catalog.services, catalog.checks, catalog.nodes) == ({}, {}, {})


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("1m30s", 90), ("1500ms", 1.5), ("0.5s", 0.5), ("0", 0), ("1h", 3600)]
)
def test_durations(text, seconds):
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "x", "5 s", "-1s", "1x", "s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(Refused, match="invalid duration"):
        duration(text)


names = st.sampled_from(["a", "a/b", "a/c", "b", ""])
values = st.sampled_from([b"", b"1", b"2"])
numbers = st.one_of(st.none(), st.integers(0, 12))
actions = st.one_of(
    st.tuples(st.just("put"), names, values, numbers),
    st.tuples(st.just("delete"), names, st.just(b""), numbers),
    st.tuples(st.just("tree"), names, st.just(b""), st.none()),
)


@given(st.lists(actions, max_size=40))
def test_invariant_of_keys(script):
    keys = Keys(Journal())
    prefixes = ["", "a", "a/", "b", "none"]
    seen = {prefix: keys.under(prefix) for prefix in prefixes}
    for verb, key, value, cas in script:
        if verb == "put":
            keys.put(key, value, cas=cas)
        elif verb == "delete":
            keys.delete(key, cas=cas)
        else:
            keys.delete_under(key)
        for prefix in prefixes:
            index, found = keys.under(prefix)
            old_index, old_found = seen[prefix]
            assert index >= 1
            if found or old_found:
                assert index >= old_index or not old_found  # an absent prefix has the whole store's index
            if [(one.key, one.value) for one in found] != [(one.key, one.value) for one in old_found] and old_found:
                assert index > old_index
            seen[prefix] = index, found


@given(st.lists(st.tuples(st.sampled_from(["set", "cas", "delete", "get", "delete-tree", "bogus"]), names), max_size=8))
def test_a_transaction_is_done_whole_or_not_at_all(script):
    keys = Keys(Journal())
    keys.put("a", b"old")
    before = keys.under("")[1]
    entries, failed = keys.apply([Step(verb, key, b"new") for verb, key in script])
    if failed:
        assert entries == []
        assert keys.under("")[1] == before
        assert all(why for _, why in failed)
    else:
        assert all(verb != "bogus" for verb, _ in script)


def test_writing_the_same_value_moves_nothing():
    journal = Journal()
    keys = Keys(journal)
    keys.put("a", b"1")
    index = journal.index
    assert keys.put("a", b"1")
    assert journal.index == index
    assert keys.put("a", b"1", flags=7)
    assert journal.index == index + 1

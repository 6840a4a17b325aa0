"""The client against the dev agent and a real Consul: both must agree."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest

from meshsdk_registry import (
    MAX_VALUE,
    Conflict,
    Consul,
    Health,
    KeyValue,
    Missing,
    Operation,
    Registration,
    Rejected,
    TooLarge,
)

SOON = 2.0
"""Seconds a wake-up may take on a busy machine; it takes milliseconds."""


def registration(name: str, **changes) -> Registration:
    facts = {"service": name, "id": f"{name}-1", "address": "10.0.0.1", "port": 8001, "ttl": 30.0, **changes}
    return Registration(**facts)


async def only(consul: Consul, name: str):
    (instance,) = (await consul.instances(name)).value
    return instance


async def test_who_answers(consul):
    info = await consul.agent_info()
    assert info.datacenter == "dc1"
    assert info.version.startswith("1.8.7")
    assert info.node
    assert info.intention_default == "allow"
    assert ":" in await consul.leader()


async def test_a_registration_is_seen_as_it_was_made(consul, name):
    new = registration(name, meta={"protocol": "http"}, tags=("a", "b"), weight=7)
    await consul.register(new)
    found = await only(consul, name)
    assert (found.id, found.service, found.address, found.port) == (new.id, name, "10.0.0.1", 8001)
    assert (found.meta, found.tags, found.weight, found.datacenter) == ({"protocol": "http"}, ("a", "b"), 7, "dc1")
    assert found.health is Health.CRITICAL
    await consul.pass_ttl(new.check_id, "policy 7")
    assert (await only(consul, name)).health is Health.PASSING
    assert (await consul.services()).value[name] == ("a", "b")
    assert (await consul.local_services())[new.id].port == 8001
    assert (await consul.local_checks())[new.check_id].output == "policy 7"
    await consul.deregister(new.id)
    assert (await consul.instances(name)).value == ()
    assert name not in (await consul.services()).value


async def test_an_instance_without_address_has_its_nodes(consul, name):
    await consul.register(registration(name, address=""))
    assert (await only(consul, name)).address == "127.0.0.1"
    await consul.register(registration(name, address="::1"))
    assert (await only(consul, name)).address == "::1"


async def test_the_levels_of_health(consul, name):
    new = registration(name)
    await consul.register(new)
    await consul.warn_ttl(new.check_id, "hot")
    warned = await only(consul, name)
    assert (warned.health, warned.output) == (Health.WARNING, "hot")
    await consul.fail_ttl(new.check_id, "broken")
    failed = await only(consul, name)
    assert (failed.health, failed.output) == (Health.CRITICAL, "broken")


async def test_registered_anew_while_critical_stays_critical_until_it_passes(consul, name):
    new = registration(name)
    await consul.register(new)
    await consul.fail_ttl(new.check_id, "broken")
    before = await only(consul, name)
    await consul.register(new)
    again = await only(consul, name)
    assert (again.health, again.modify_index) == (Health.CRITICAL, before.modify_index)
    await consul.register(registration(name, meta={"version": "2"}))
    changed = await only(consul, name)
    assert changed.health is Health.CRITICAL
    assert changed.modify_index > before.modify_index
    await consul.pass_ttl(new.check_id)
    assert (await only(consul, name)).health is Health.PASSING


async def test_a_ttl_runs_out(consul, name):
    new = registration(name, ttl=0.3)
    await consul.register(new)
    await consul.pass_ttl(new.check_id, "well")
    answer = await consul.instances(name)
    assert answer.value[0].health is Health.PASSING
    expired = await consul.instances(name, index=answer.index, wait=5)
    assert expired.value[0].health is Health.CRITICAL
    assert expired.value[0].output == "TTL expired (last output before timeout follows): well"


async def test_a_check_consul_does_not_know_is_missing(consul, name):
    with pytest.raises(Missing, match="Register the service anew"):
        await consul.pass_ttl(f"service:{name}")
    with pytest.raises(Missing, match="No service registered with ID"):
        await consul.maintenance(name, enable=True)
    await consul.deregister(name)


async def test_a_change_wakes_a_blocking_query_at_once(consul, name):
    new = registration(name)
    await consul.register(new)
    await asyncio.sleep(0.2)  # let the agent's own bookkeeping settle, which also moves the index
    answer = await consul.instances(name)
    waiting = asyncio.create_task(consul.instances(name, index=answer.index, wait=30))
    done, _ = await asyncio.wait({waiting}, timeout=0.2)
    assert not done
    started = time.monotonic()
    await consul.pass_ttl(new.check_id)
    woken = await waiting
    assert time.monotonic() - started < SOON
    assert woken.value[0].health is Health.PASSING
    assert woken.index > answer.index


async def test_a_blocking_query_without_change_ends_after_its_wait(consul, name):
    await consul.put(f"{name}/a", b"1")
    answer = await consul.keys(name)
    started = time.monotonic()
    again = await consul.keys(name, index=answer.index, wait=0.4)
    assert 0.35 < time.monotonic() - started < 0.4 + SOON
    assert (again.value, again.index) == (answer.value, answer.index)


async def test_an_equal_value_wakes_nobody(consul, name):
    await consul.put(f"{name}/a", b"1")
    answer = await consul.keys(f"{name}/")
    waiting = asyncio.create_task(consul.keys(f"{name}/", index=answer.index, wait=20))
    await asyncio.wait({waiting}, timeout=0.1)
    assert await consul.put(f"{name}/a", b"1")
    done, _ = await asyncio.wait({waiting}, timeout=0.3)
    assert not done
    await consul.put(f"{name}/a", b"2")
    assert [one.value for one in (await asyncio.wait_for(waiting, SOON)).value] == [b"2"]


async def test_a_prefix_that_does_not_exist_yet_can_be_waited_for(consul, name):
    answer = await consul.keys(f"{name}/")
    assert answer.value == ()
    assert answer.index >= 1
    waiting = asyncio.create_task(consul.keys(f"{name}/", index=answer.index, wait=20))
    await asyncio.wait({waiting}, timeout=0.1)
    await consul.put(f"{name}/a", b"1")
    woken = await asyncio.wait_for(waiting, SOON)
    assert [(one.key, one.value) for one in woken.value] == [(f"{name}/a", b"1")]


@pytest.mark.parametrize("key", ["with space", "ä/ö", "a?b=c", "a#b", "a%2Fb", "a+b", "a&b", "trailing/"])
async def test_a_key_is_stored_under_exactly_its_name(consul, name, key):
    await consul.put(f"{name}/{key}", b"1")
    assert [one.key for one in (await consul.keys(f"{name}/")).value] == [f"{name}/{key}"]
    assert (await consul.key(f"{name}/{key}")).value.key == f"{name}/{key}"
    assert await consul.delete(f"{name}/{key}")
    assert (await consul.key(f"{name}/{key}")).value is None


async def test_values_are_bytes(consul, name):
    every = bytes(range(256))
    await consul.put(name, every, flags=3)
    found = (await consul.key(name)).value
    assert (found.value, found.flags) == (every, 3)
    await consul.put(f"{name}/empty", b"")
    assert (await consul.key(f"{name}/empty")).value.value is None


async def test_compare_and_set(consul, name):
    assert await consul.put(name, b"1", cas=0)
    assert not await consul.put(name, b"2", cas=0)
    found = (await consul.key(name)).value
    assert await consul.put(name, b"2", cas=found.modify_index)
    assert not await consul.put(name, b"3", cas=found.modify_index)
    assert not await consul.delete(name, cas=found.modify_index)
    now = (await consul.key(name)).value
    assert now.value == b"2"
    assert await consul.delete(name, cas=now.modify_index)
    assert (await consul.key(name)).value is None


async def test_a_transaction_is_all_or_nothing(consul, name):
    first, second = f"{name}/a", f"{name}/b"
    written = await consul.txn([Operation("set", first, b"1"), Operation("set", second, b"2"), Operation("get", first)])
    assert [one.key for one in written] == [first, second, first]
    assert written[2].value == b"1"
    with pytest.raises(Conflict, match="index is stale"):
        await consul.txn([Operation("set", first, b"9"), Operation("cas", second, b"9", index=1)])
    assert [one.value for one in (await consul.keys(f"{name}/")).value] == [b"1", b"2"]
    await consul.txn([Operation("delete-tree", f"{name}/")])
    assert (await consul.keys(f"{name}/")).value == ()


async def test_a_transaction_has_at_most_64_operations(consul, name):
    steps = [Operation("set", f"{name}/{n}", b"") for n in range(65)]
    with pytest.raises(ValueError, match=r"65 operations .* takes 64"):
        await consul.txn(steps)
    assert len(await consul.txn(steps[:64])) == 64
    with pytest.raises(TooLarge, match="split it"):
        await consul.txn([Operation("set", name, b"x" * MAX_VALUE)])


async def test_a_value_has_at_most_512_kib(consul, name):
    assert await consul.put(name, b"x" * MAX_VALUE)
    assert len((await consul.key(name)).value.value) == MAX_VALUE
    with pytest.raises(TooLarge, match="524289 bytes are over Consul's 524288"):
        await consul.put(name, b"x" * (MAX_VALUE + 1))
    with pytest.raises(TooLarge, match="413 Request body"):  # what Consul says to a client that does not check
        await consul._api.kv.put(name, b"x" * (MAX_VALUE + 1))


async def test_maintenance_is_seen_with_its_reason_and_the_first_reason_stays(consul, name):
    new = registration(name)
    await consul.register(new)
    await consul.pass_ttl(new.check_id)
    await consul.maintenance(new.id, enable=True, reason="disk & dust")
    await consul.maintenance(new.id, enable=True, reason="another")
    held = await only(consul, name)
    assert (held.health, held.output) == (Health.MAINTENANCE, "disk & dust")
    check = (await consul.local_checks())[f"_service_maintenance:{new.id}"]
    assert (check.status, check.notes, check.service_id) == (Health.MAINTENANCE, "disk & dust", new.id)
    await consul.maintenance(new.id, enable=False)
    assert (await only(consul, name)).health is Health.PASSING


def add_a_thousand(url: str, name: str) -> None:
    with httpx.Client(base_url=url, trust_env=False) as http:
        for n in range(1000):
            service = {"ID": f"{name}-{n}", "Service": name, "Port": 1 + n, "Address": "10.1.0.1"}
            body = {"Node": f"node-{name}-{n % 10}", "Address": f"10.0.0.{n % 10}", "Service": service}
            http.put("/v1/catalog/register", json=body).raise_for_status()


async def test_a_thousand_instances_of_one_service(consul, name):
    await asyncio.to_thread(add_a_thousand, consul.url, name)
    answer = await consul.instances(name)
    assert {one.port for one in answer.value} == set(range(1, 1001))
    waiting = asyncio.create_task(consul.instances(name, index=answer.index, wait=20))
    await asyncio.wait({waiting}, timeout=0.1)
    gone = {"Node": f"node-{name}-3", "ServiceID": f"{name}-3"}
    await consul.raw("PUT", "/v1/catalog/deregister", data=json.dumps(gone))
    assert len((await asyncio.wait_for(waiting, 5)).value) == 999
    for n in range(10):
        await consul.raw("PUT", "/v1/catalog/deregister", data=json.dumps({"Node": f"node-{name}-{n}"}))


async def test_stale_and_leader_reads_say_who_knows(server, name):
    for stale in (True, False):
        async with Consul(server.url, stale=stale) as consul:
            answer = await consul.instances(name)
            assert (answer.value, answer.known_leader, answer.last_contact) == ((), True, 0.0)


async def test_another_datacenter_is_refused_by_name(server, name):
    async with Consul(server.url, datacenter="dc9") as consul:
        with pytest.raises(Rejected, match="Correct the datacenter's name"):
            await consul.instances(name)
        with pytest.raises(Rejected, match="No path to datacenter"):
            await consul.keys(name)
    async with Consul(server.url) as consul:
        with pytest.raises(Rejected, match=r"dc9|datacenter"):
            await consul.instances(name, datacenter="dc9")
        assert (await consul.instances(name, datacenter="dc1")).value == ()


async def test_a_wait_over_four_minutes_is_refused(consul, name):
    with pytest.raises(ValueError, match="write 0 to 240 seconds"):
        await consul.keys(name, index=1, wait=241)


async def test_an_output_longer_than_consul_keeps_is_cut(consul, name):
    new = registration(name)
    await consul.register(new)
    await consul.pass_ttl(new.check_id, "ä" * 4000)
    assert (await consul.local_checks())[new.check_id].output == "ä" * 2048


def test_a_missing_value_is_not_an_empty_one():
    assert KeyValue("a", None, 1) != KeyValue("a", b"", 1)

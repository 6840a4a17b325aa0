"""Staying registered: through restarts, forgotten registrations, drains and their leftovers."""

from __future__ import annotations

import asyncio
import random

import pytest

from meshsdk_registry import (
    DRAINING,
    Back,
    Consul,
    Health,
    Heartbeat,
    Held,
    Lost,
    Registered,
    Registration,
    Unreachable,
)


def registration(name: str, **changes) -> Registration:
    return Registration(
        **{"service": name, "id": f"{name}-1", "address": "10.0.0.1", "port": 80, "ttl": 30.0, **changes}
    )


async def until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("did not happen within 10 s")


async def health(consul: Consul, name: str) -> list[Health]:
    return [one.health for one in (await consul.instances(name)).value]


async def test_a_beat_registers_and_carries_the_output(consul, name, notes):
    told, notify = notes
    heartbeat = Heartbeat(consul, registration(name), output=lambda: "policy 7", notify=notify)
    assert not heartbeat.registered
    assert await heartbeat.beat() == 10
    assert await heartbeat.beat() == 10
    assert heartbeat.registered
    assert told == [Registered(heartbeat.registration, again=False)]
    assert await health(consul, name) == [Health.PASSING]
    assert (await consul.local_checks())[heartbeat.registration.check_id].output == "policy 7"


async def test_a_changed_output_reaches_the_catalog_at_once(consul, name):
    outputs = iter(["policy 1", "policy 2", "policy 2"])
    heartbeat = Heartbeat(consul, registration(name), output=lambda: next(outputs))
    for expected in ("policy 1", "policy 2", "policy 2"):
        await heartbeat.beat()
        seen, answer = None, await consul.checks(name)
        for _ in range(5):  # Consul's agent tells the catalog a few milliseconds after the registration
            seen = [one.output for one in answer.value]
            if seen == [expected]:
                break
            answer = await consul.checks(name, index=answer.index, wait=2)
        assert seen == [expected]
        assert await health(consul, name) == [Health.PASSING]


async def test_a_restarted_process_shows_its_output_with_the_second_beat(consul, name):
    await Heartbeat(consul, registration(name), output=lambda: "old").beat()
    restarted = Heartbeat(consul, registration(name), output=lambda: "new")
    await restarted.beat()
    await restarted.beat()
    answer = await consul.checks(name)
    if answer.value[0].output != "new":
        answer = await consul.checks(name, index=answer.index, wait=5)
    assert answer.value[0].output == "new"


async def test_forgotten_means_registered_again(consul, name, notes):
    told, notify = notes
    heartbeat = Heartbeat(consul, registration(name), notify=notify)
    await heartbeat.beat()
    await consul.deregister(heartbeat.registration.id)
    assert await health(consul, name) == []
    await heartbeat.beat()
    assert await health(consul, name) == [Health.PASSING]
    assert [event.again for event in told] == [False, True]


async def test_a_critical_leftover_passes_again(consul, name):
    new = registration(name)
    await consul.register(new)
    await consul.fail_ttl(new.check_id, "died")
    await Heartbeat(consul, new).beat()
    assert await health(consul, name) == [Health.PASSING]


async def test_a_drain_is_ours_to_clear_at_the_next_start(consul, name):
    first = Heartbeat(consul, registration(name))
    await first.beat()
    await first.drain()
    assert [one.output for one in (await consul.instances(name)).value] == [DRAINING]
    await first.beat()
    assert await health(consul, name) == [Health.MAINTENANCE]
    await Heartbeat(consul, registration(name)).beat()
    assert await health(consul, name) == [Health.PASSING]


async def test_an_operators_maintenance_stays(consul, name, notes):
    told, notify = notes
    await Heartbeat(consul, registration(name)).beat()
    await consul.maintenance(f"{name}-1", enable=True, reason="disk")
    again = Heartbeat(consul, registration(name), notify=notify)
    await again.beat()
    assert await health(consul, name) == [Health.MAINTENANCE]
    assert told[1:] == [Held("disk")]
    await again.drain()
    assert [one.output for one in (await consul.instances(name)).value] == ["disk"]


async def test_forgotten_while_draining_goes_back_into_maintenance(consul, name):
    heartbeat = Heartbeat(consul, registration(name))
    await heartbeat.beat()
    await heartbeat.drain()
    await consul.deregister(heartbeat.registration.id)
    await heartbeat.beat()
    assert await health(consul, name) == [Health.MAINTENANCE]


async def test_after_deregistering_nothing_registers_again(consul, name):
    heartbeat = Heartbeat(consul, registration(name, ttl=0.3))
    running = asyncio.create_task(heartbeat.run())
    async with asyncio.timeout(10):
        await until(lambda: heartbeat.registered)
        await heartbeat.deregister()
        await running
    assert await heartbeat.beat() == 0
    assert await health(consul, name) == []
    assert "gone" in repr(heartbeat)


async def test_beats_keep_a_short_ttl_alive(consul, name):
    heartbeat = Heartbeat(consul, registration(name, ttl=1.2))
    running = asyncio.create_task(heartbeat.run())
    async with asyncio.timeout(10):
        await until(lambda: heartbeat.registered)
    seen = set()
    for _ in range(15):  # for two and a half times as long
        await asyncio.sleep(0.2)
        seen.update(await health(consul, name))
    running.cancel()
    assert seen == {Health.PASSING}


async def test_absence_of_consul_is_waited_out(restartable, name, notes):
    told, notify = notes
    await asyncio.to_thread(restartable.stop)
    async with Consul(restartable.url) as consul:
        heartbeat = Heartbeat(consul, registration(name, ttl=1.5), notify=notify)
        running = asyncio.create_task(heartbeat.run())
        async with asyncio.timeout(20):
            await until(lambda: told)
            assert isinstance(told[0], Lost)
            assert isinstance(told[0].error, Unreachable)
            await asyncio.to_thread(restartable.start, empty=True)
            await until(lambda: isinstance(told[-1], Back))
            assert await health(consul, name) == [Health.PASSING]
            await asyncio.to_thread(restartable.stop)
            await asyncio.to_thread(restartable.start, empty=True)
            await until(lambda: [type(event) for event in told].count(Registered) == 2)
            assert await health(consul, name) == [Health.PASSING]
        running.cancel()
    assert [event.again for event in told if isinstance(event, Registered)] == [False, True]


async def test_retries_come_fast_and_never_later_than_a_beat(name, clock, notes):
    told, notify = notes
    async with Consul("http://127.0.0.1:1") as consul:
        heartbeat = Heartbeat(consul, registration(name), notify=notify, clock=clock, rng=random.Random(1))
        pauses = [await heartbeat.beat() for _ in range(12)]
    assert pauses[0] <= 0.1
    assert max(pauses) <= 10
    assert len(told) == 1
    assert not heartbeat.registered


async def test_draining_and_leaving_without_consul_say_so(name):
    async with Consul("http://127.0.0.1:1") as consul:
        heartbeat = Heartbeat(consul, registration(name))
        with pytest.raises(Unreachable):
            await heartbeat.drain()
        with pytest.raises(Unreachable):
            await heartbeat.deregister()
        assert await heartbeat.beat() == 0


def test_a_bad_registration_is_told_at_once():
    with pytest.raises(ValueError, match="1 to 65535"):
        Heartbeat(Consul(), registration("web", port=0))

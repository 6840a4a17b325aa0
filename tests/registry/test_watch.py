"""Watches under changes, restarts and faults."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing

import pytest

from meshsdk_registry import (
    Answer,
    Back,
    Changed,
    Consul,
    Lost,
    Misunderstood,
    Registration,
    Unreachable,
    watch_instances,
    watch_keys,
)
from meshsdk_registry.watch import _watch

SOON = 5.0
"""Seconds an event may take on a busy machine."""


async def following(events, kind=object):
    """The next event of a kind."""
    async with asyncio.timeout(SOON + 10):
        async for event in events:
            if isinstance(event, kind):
                return event
    raise AssertionError("the watch ended")


async def test_instances_come_and_go(consul, name):
    async with aclosing(watch_instances(consul, name)) as events:
        assert (await following(events)).answer.value == ()
        new = Registration(name, f"{name}-1", "10.0.0.1", 80, ttl=30)
        await consul.register(new)
        await consul.pass_ttl(new.check_id)
        changed = await following(events)
        while changed.answer.value[0].health != "passing":
            changed = await following(events)
        await consul.deregister(new.id)
        assert (await following(events)).answer.value == ()


async def test_keys_of_a_prefix_that_is_created_later(consul, name):
    async with aclosing(watch_keys(consul, f"{name}/")) as events:
        assert (await following(events)).answer.value == ()
        await consul.put(f"{name}/a", b"1")
        assert [one.value for one in (await following(events)).answer.value] == [b"1"]
        await consul.put(f"{name}/a", b"1")
        await consul.put(f"{name}/b", b"2")
        assert [one.value for one in (await following(events)).answer.value] == [b"1", b"2"]
        await consul.delete(f"{name}/a")
        assert [one.key for one in (await following(events)).answer.value] == [f"{name}/b"]
        await consul.delete(f"{name}/b")
        assert (await following(events)).answer.value == ()


async def test_a_watch_outlives_a_restart_that_forgot_everything(restartable, name):
    async with Consul(restartable.url) as consul, aclosing(watch_keys(consul, f"{name}/")) as events:
        for n in range(20):  # the index before the restart is past the first ones after it
            await consul.put(f"{name}/a", str(n).encode())
        while (await following(events, Changed)).answer.value != (await consul.keys(f"{name}/")).value:
            pass
        await asyncio.to_thread(restartable.stop)
        lost = await following(events)
        assert isinstance(lost, Lost)
        assert isinstance(lost.error, Unreachable)
        await asyncio.to_thread(restartable.start, empty=True)
        back = await following(events, Back)
        assert back.away > 0
        assert (await following(events, Changed)).answer.value == ()
        await consul.put(f"{name}/b", b"new")
        assert [one.value for one in (await following(events, Changed)).answer.value] == [b"new"]


async def test_a_restart_with_the_same_state_is_back_without_change(dev_agent, name):
    async with Consul(dev_agent.url) as consul, aclosing(watch_keys(consul, f"{name}/")) as events:
        await consul.put(f"{name}/a", b"1")
        await following(events, Changed)
        await asyncio.to_thread(dev_agent.stop)
        await following(events, Lost)
        await asyncio.to_thread(dev_agent.start)
        await following(events, Back)
        await consul.put(f"{name}/a", b"2")
        event = await following(events)
        assert isinstance(event, Changed)
        assert event.answer.value[0].value == b"2"


async def test_a_bad_name_is_told_before_the_first_query(dev_agent):
    async with Consul(dev_agent.url) as consul:
        with pytest.raises(ValueError, match="spaces and slashes"):
            watch_instances(consul, "my service")
        with pytest.raises(ValueError, match="no leading slash"):
            watch_keys(consul, "/mesh")


class Script:
    """Answers queries from a list; remembers the index of each."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    async def __call__(self, index):
        self.asked.append(index)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def events_of(script, clock, count):
    seen = []
    async with aclosing(_watch(script, clock, clock.sleep, random.Random(3))) as events:
        while len(seen) < count:
            seen.append(await anext(events))
    return seen


async def test_an_outage_is_told_once_per_error_and_once_back(clock):
    down, odd = Unreachable("down"), Misunderstood("odd")
    script = Script(Answer("v", 9), down, down, odd, down, Answer("v", 3), Answer("w", 4))
    seen = await events_of(script, clock, 5)
    assert [type(event) for event in seen] == [Changed, Lost, Lost, Back, Changed]
    assert [event.error for event in seen[1:3]] == [down, odd]
    assert seen[1].since == seen[2].since == 1000.0
    assert seen[3].away == pytest.approx(sum(clock.slept))
    assert script.asked == [0, 9, 0, 0, 0, 0, 3]


async def test_the_first_retry_is_fast_and_the_last_within_ten_seconds(clock):
    script = Script(*[Unreachable("down")] * 30, Answer("v", 1))
    await events_of(script, clock, 3)
    assert len(clock.slept) == 30
    assert clock.slept[0] <= 0.1
    assert max(clock.slept) <= 10
    assert sum(clock.slept) > 30


async def test_a_change_during_the_outage_is_told_after_back(clock):
    seen = await events_of(Script(Answer("v", 1), Unreachable("x"), Answer("w", 2)), clock, 4)
    assert [type(event) for event in seen] == [Changed, Lost, Back, Changed]


async def test_wake_ups_without_change_are_silent_and_slowed(clock):
    script = Script(*[Answer("v", n) for n in range(1, 60)], Answer("w", 99))
    seen = await events_of(script, clock, 2)
    assert [event.answer.value for event in seen] == ["v", "w"]
    assert sum(clock.slept) == pytest.approx((58 - 16) / 4, abs=0.3)

"""The service's presence in Consul, on a dev agent: what is told, when, and the end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from meshsdk_registry import DRAINING, Consul, Health, Registration
from meshsdk_sidecar.presence import Presence

TOLD = Registration("legacy", "legacy-1", "127.0.0.1", 15006, {"mesh": "1"}, ttl=15.0)


class World:
    """What a presence is told of: the app, the port, the policy."""

    def __init__(self) -> None:
        self.told: Registration | None = TOLD
        self.trouble = ""
        self.why = "no certificate yet"


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - the agent answers when it does
            await asyncio.sleep(0.01)


@pytest.fixture
async def consul(dev_agent):
    async with Consul(dev_agent.url) as client:
        yield client


@asynccontextmanager
async def present(consul, world):
    presence = Presence(
        consul,
        told=lambda: world.told,
        trouble=lambda: world.trouble,
        output=lambda: "policies: defaults",
        why_not=lambda: world.why,
    )
    task = asyncio.create_task(presence.run())
    try:
        yield presence
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled() or task.exception() is None


async def seen(consul) -> list[tuple[Health, str, int, dict[str, str]]]:
    found = (await consul.instances("legacy")).value
    return [(each.health, each.output, each.port, dict(each.meta)) for each in found]


PASSING = (Health.PASSING, "", 15006, {"mesh": "1"})


def becomes(consul, *expected):
    async def condition() -> bool:
        return await seen(consul) == list(expected)

    return condition


async def test_health_is_told_at_once_with_the_reason(consul):
    world = World()
    world.trouble = "nothing listens at 127.0.0.1:8080"
    critical = (Health.CRITICAL, world.trouble, 15006, {"mesh": "1"})
    async with present(consul, world) as presence:
        assert presence.why_absent == world.trouble
        await until(becomes(consul, critical))
        for _ in range(2):
            world.trouble = ""
            presence.turned()
            await until(becomes(consul, PASSING))
            assert presence.why_absent == ""
            world.trouble = critical[1]
            presence.turned()
            await until(becomes(consul, critical))  # within the 5 s of a heartbeat, as it is not waited for
            assert presence.why_absent == world.trouble


async def test_it_waits_until_callers_may_come_in_and_says_why_not(consul, caplog):
    world = World()
    world.told = None
    async with present(consul, world) as presence:
        assert presence.why_absent == "not registered: no certificate yet"

        async def said() -> bool:
            return "not registered: no certificate yet" in caplog.text

        await until(said)
        assert await seen(consul) == []
        world.told = TOLD
        await until(becomes(consul, PASSING))
    assert caplog.text.count("no certificate yet") == 1


async def test_what_changes_is_registered_anew(consul):
    world = World()
    async with present(consul, world):
        await until(becomes(consul, PASSING))
        world.told = Registration("legacy", "legacy-1", "127.0.0.1", 15006, {"mesh": "1", "mesh-tls": "strict"})
        await until(becomes(consul, (Health.PASSING, "", 15006, {"mesh": "1", "mesh-tls": "strict"})))


async def begin_to_leave(consul, presence, seconds):
    leaving = asyncio.create_task(presence.leave(seconds))
    await until(becomes(consul, (Health.MAINTENANCE, DRAINING, 15006, {"mesh": "1"})))
    return leaving


async def test_the_end_is_maintenance_and_then_nothing(consul):
    world = World()
    async with present(consul, world) as presence:
        await until(becomes(consul, PASSING))
        leaving = await begin_to_leave(consul, presence, 0.3)
        assert presence.why_absent == "draining: callers are sent elsewhere"
        await leaving
        assert await seen(consul) == []
        presence.turned()  # nothing brings it back
        await presence.leave(5.0)
    assert await seen(consul) == []


async def test_an_instance_that_was_handed_over_while_we_left_is_the_other_ones(consul):
    world = World()
    async with present(consul, world) as presence:
        await until(becomes(consul, PASSING))
        leaving = await begin_to_leave(consul, presence, 1.0)
        await presence.hand_over()
        assert not leaving.done()
        async with present(consul, world):  # the process that takes over
            await until(becomes(consul, PASSING))
            await leaving
            assert await seen(consul) == [PASSING]


async def test_leaving_at_once_and_before_anything_was_told(consul):
    world = World()
    async with present(consul, world) as presence:
        await until(becomes(consul, PASSING))
        await presence.leave(0.0)
        assert await seen(consul) == []
    world.told = None
    async with present(consul, world) as presence:
        await presence.leave(5.0)


async def test_consul_away(consul, dev_agent):
    world = World()
    dev_agent.stop()
    async with present(consul, world) as presence:
        assert "not registered" in presence.why_absent

        async def unconfirmed() -> bool:
            return presence.why_absent == f"not registered: Consul at {consul.url} has not confirmed it"

        await until(unconfirmed)
        presence.turned()
        dev_agent.start()
        await until(becomes(consul, PASSING))

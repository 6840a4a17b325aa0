"""The connections to one instance: so many at once, and who waits for one gets it in its turn."""

from __future__ import annotations

import asyncio
import random

import pytest

from meshsdk_sidecar.proxy.held import Place


async def entering(place: Place, *limits: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(place.enter(limit)) for limit in limits]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def inside(tasks: list[asyncio.Task[None]]) -> list[bool]:
    return [task.done() for task in tasks]


async def leaving(place: Place) -> None:
    place.leave()
    for _ in range(3):
        await asyncio.sleep(0)


async def test_higher_limit_is_for_those_who_wait_first() -> None:
    place = Place()
    tasks = await entering(place, 1, 1, 1)
    assert inside(tasks) == [True, False, False]
    tasks += await entering(place, 3, 3)
    assert inside(tasks) == [True, True, True, False, False]
    tasks += await entering(place, 0)
    assert all(inside(tasks))


async def test_lower_limit_hands_no_place_on() -> None:
    place = Place()
    tasks = await entering(place, 3, 3, 3, 1)
    for _ in range(2):
        await leaving(place)
        assert inside(tasks) == [True, True, True, False]
    await leaving(place)
    assert all(inside(tasks))
    place.leave()
    assert place.unused


async def test_none_is_lost_with_those_who_give_up() -> None:
    chance = random.Random(5)
    place, limit = Place(), 2
    tasks: list[asyncio.Task[None]] = []
    left = 0
    for _ in range(2000):
        doing = chance.random()
        if doing < 0.4:
            tasks.append(asyncio.create_task(place.enter(limit)))
        elif doing < 0.6 and tasks:
            chance.choice(tasks).cancel()
        elif doing < 0.65:
            limit = chance.randrange(5)
        elif sum(task.done() and not task.cancelled() for task in tasks) > left:
            place.leave()
            left += 1
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(sum(not task.cancelled() for task in tasks) - left):
        place.leave()
    assert place.unused
    assert place._taken == 0


@pytest.mark.parametrize("limit", [0, 1])
async def test_one_that_is_free_is_taken_at_once(limit: int) -> None:
    place = Place()
    await asyncio.wait_for(place.enter(limit), 1)
    assert not place.unused
    place.leave()
    assert place.unused

"""The life of a process beside others of its instance: who serves when one is told to end while another begins."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from math import ceil
from types import SimpleNamespace
from typing import Any, cast

import pytest

from meshsdk_sidecar.handover import NotReplaced
from meshsdk_sidecar.lifecycle import Lifecycle
from meshsdk_sidecar.process import Sidecar

PID = 4711


class World:
    """What a life has around it; notes in `done` what is done, and calls what a test put at that name in `when`."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.when: dict[str, Any] = {}
        self.settings = SimpleNamespace(drain_timeout=3.0, drain_wait=1.0)
        self.unready = ""
        self.pid = PID
        self.connected = 0
        self.draining = False

    def _note(self, what: str) -> None:
        self.done.append(what)
        self.when.get(what, lambda: None)()

    async def await_known(self) -> None:
        self._note("known")

    async def open(self, _listening: object) -> None:
        self._note("open")

    async def close(self, seconds: float = 0.0) -> None:
        self._note(f"close {ceil(seconds)}")  # what is left of it, by the clock

    async def drain_inbound(self, seconds: float) -> None:
        self._note(f"drain {seconds:g}")

    async def retire(self) -> None:
        self._note("retire")

    async def dismiss(self) -> None:
        self._note("dismiss")


@pytest.fixture
def world() -> World:
    return World()


class Life(Lifecycle):
    """One that waits for nothing."""

    async def _to_leave(self) -> float:
        cast("Any", self._plane)._note("leave")
        return 2.0

    async def _to_end(self) -> int:
        cast("Any", self._plane)._note("end")
        return 7


@pytest.fixture
def life(world) -> Lifecycle:
    around: Any = world
    return Life(around, around, around, {}, before=around, workers=None)


async def replace(life: Lifecycle, world: Any) -> None:
    async with AsyncExitStack() as begun:
        await life._replace(world, begun)


async def test_one_that_is_ready_takes_the_place(life, world):
    await replace(life, world)
    assert world.done == ["known", "open", "dismiss", "close 0"]


async def test_one_told_to_end_while_it_gets_ready_takes_nobodys_place(life, world):
    world.when["known"] = life._stop.set
    with pytest.raises(NotReplaced, match=f"^told to end before it was ready: process {PID} goes on serving$"):
        await replace(life, world)
    assert world.done == ["known"]


async def test_nor_while_it_opens_and_who_came_in_to_it_is_answered(life, world):
    world.when["open"] = life._stop.set
    with pytest.raises(NotReplaced, match=f"process {PID} goes on serving"):
        await replace(life, world)
    assert world.done == ["known", "open", "close 3", "close 0"]


async def test_the_end(life, world):
    assert await life._end() == 7
    assert world.done == ["leave", "drain 2", "end"]


async def test_one_replaced_while_it_ends_finishes_and_leaves_the_rest_to_the_other(life, world):
    replaced = []
    world.when["leave"] = lambda: replaced.append(asyncio.create_task(life._be_replaced(PID)))
    assert await life._end() == 0
    await replaced[0]
    assert world.done == ["leave", "drain 2", "retire", "close 3"]


async def test_a_way_in_that_was_not_open_when_the_end_began_opens_no_more(world):
    around: Any = world
    with socket.create_server(("127.0.0.1", 0)) as into:
        sidecar = Sidecar.__new__(Sidecar)
        Lifecycle.__init__(sidecar, around, around, around, {"inbound": [into]}, before=None, workers=None)
        world.when["known"] = lambda: setattr(world, "draining", True)
        await sidecar._enter(around)
        assert world.done == ["known"]
        assert into.fileno() == -1, "callers are not kept waiting"

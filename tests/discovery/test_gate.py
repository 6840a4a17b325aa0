"""Threads and tasks wait at the same door."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest
import trio

from meshsdk.discovery.gate import Gate


async def test_tasks_of_several_loops_and_threads_go_through_at_once():
    gate, results = Gate(), []

    def thread():
        results.append(gate.wait(5))

    def loop():
        results.append(asyncio.run(gate.await_open(5)))

    waiting = [threading.Thread(target=target) for target in (thread, loop, thread, loop)]
    for one in waiting:
        one.start()
    task = asyncio.create_task(gate.await_open(5))
    await asyncio.sleep(0)
    gate.open()
    assert await task
    for one in waiting:
        one.join(5)
    assert results == [True] * 4
    assert await gate.await_open(0)
    assert gate.is_open


async def test_time_runs_out():
    gate = Gate()
    assert not gate.wait(0)
    assert not await gate.await_open(0.001)
    assert gate._waiting == {}


async def test_a_cancelled_waiter_leaves_nothing_behind():
    gate = Gate()
    task = asyncio.create_task(gate.await_open(5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate._waiting == {}
    gate.open()


async def test_others_wait_on_when_one_is_cancelled():
    gate = Gate()
    tasks = [asyncio.create_task(gate.await_open(5)) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    gate.open()
    assert [await task for task in tasks[1:]] == [True, True]


def test_a_waiter_whose_loop_is_gone_is_passed_over():
    gate, loop = Gate(), asyncio.new_event_loop()
    gate._waiting[anyio.Event()] = loop
    loop.close()
    gate.open()
    assert gate.is_open


def test_runs_of_trio_go_through_too():
    gate, opened = Gate(), []

    async def wait():
        opened.append(await gate.await_open(5))

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await trio.to_thread.run_sync(gate.open)

    trio.run(main)
    assert opened == [True, True]
    assert gate._waiting == {}


def test_trio_runs_out_of_time_and_is_cancelled():
    gate = Gate()

    async def main():
        assert not await gate.await_open(0.001)
        with trio.move_on_after(0.001) as scope:
            await gate.await_open(5)
        assert scope.cancelled_caught

    trio.run(main)
    assert gate._waiting == {}

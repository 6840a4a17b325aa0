"""A run of trio under asyncio's names."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
import trio
import trio.testing

from meshsdk.runs import TrioRun, running
from meshsdk.wire.httpcore_runs import PerRun


def test_which_one_runs() -> None:
    async def here() -> object:
        assert running() == running()
        return running()

    assert isinstance(asyncio.run(here()), asyncio.AbstractEventLoop)
    run = trio.run(here)
    assert isinstance(run, TrioRun)
    assert run != trio.run(here)
    with pytest.raises(RuntimeError):
        running()


def test_what_is_asked_of_a_run_from_a_thread() -> None:
    async def main() -> TrioRun:
        run, called = running(), trio.Event()
        assert isinstance(run, TrioRun)
        assert not await trio.to_thread.run_sync(run.is_closed)
        await trio.to_thread.run_sync(run.call_soon_threadsafe, called.set)
        with trio.fail_after(5):
            await called.wait()
        return run

    run = trio.run(main)
    assert run.is_closed()
    with pytest.raises(RuntimeError):
        run.call_soon_threadsafe(print)


def test_a_task_that_fails_does_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise OSError("no such connection")

    async def main() -> None:
        run = running()
        assert run.create_task(fail()) is None
        await trio.testing.wait_all_tasks_blocked()

    with caplog.at_level(logging.WARNING, "meshsdk.wire"):
        trio.run(main)
    assert "no such connection" in caplog.text


def test_each_run_has_its_own_which_ends_with_it() -> None:
    ended: list[object] = []

    async def end(made: object) -> None:
        ended.append(made)

    per_run = PerRun(object, end)

    async def main() -> object:
        assert per_run.current() is None
        made = await per_run.enter()
        assert per_run.current() is made
        return made

    made = [trio.run(main), asyncio.run(main())]
    assert ended == made
    assert per_run._loops == {}


def test_leaving_ends_it_at_once() -> None:
    ended: list[object] = []

    async def end(made: object) -> None:
        ended.append(made)

    per_run = PerRun(object, end)

    async def main() -> None:
        made = await per_run.enter()
        await per_run.leave()
        assert ended == [made]
        assert per_run.current() is None
        await per_run.leave()

    trio.run(main)
    assert len(ended) == 1


def test_a_run_that_goes_on_elsewhere_is_not_taken_for_over() -> None:
    async def end(made: object) -> None:
        del made

    per_run = PerRun(object, end)
    entered, go_on = threading.Event(), threading.Event()
    kept: list[bool] = []

    async def first() -> None:
        made = await per_run.enter()
        entered.set()
        await trio.to_thread.run_sync(go_on.wait, 5)
        kept.append(per_run.current() is made)

    thread = threading.Thread(target=trio.run, args=(first,))
    thread.start()
    assert entered.wait(5)
    trio.run(per_run.enter)
    go_on.set()
    thread.join(5)
    assert kept == [True]

"""The request being served follows its work into tasks, threads and pools, and never stays in a pool's thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import anyio
import anyio.to_thread
import pytest
from opentelemetry import context as otel

from meshsdk.telemetry import threads
from meshsdk.telemetry.context import Inbound, current

KEY = otel.create_key("test")


@pytest.fixture(autouse=True)
def following() -> Iterator[None]:
    threads.follow()
    yield
    threads.unfollow()


@pytest.fixture
def request_here() -> Iterator[Inbound]:
    inbound, before = Inbound(deadline=1.0), otel.get_current()
    token = current.set(inbound)
    otel.attach(otel.set_value(KEY, "span"))
    yield inbound
    otel.attach(before)
    current.reset(token)


def seen() -> tuple[Inbound | None, object]:
    return current.get(), otel.get_value(KEY)


def in_thread() -> tuple[Inbound | None, object]:
    found: list[tuple[Inbound | None, object]] = []
    thread = threading.Thread(target=lambda: found.append(seen()))
    thread.start()
    thread.join()
    return found[0]


def test_thread(request_here: Inbound):
    assert in_thread() == (request_here, "span")


def test_thread_without_request_sees_nothing():
    assert in_thread() == (None, None)


def test_thread_subclass_with_its_own_run(request_here: Inbound):
    class Worker(threading.Thread):
        def run(self) -> None:
            self.found = seen()

    worker = Worker()
    worker.start()
    worker.join()
    assert worker.found == (request_here, "span")
    assert "run" not in vars(worker)


def test_timer(request_here: Inbound):
    found: Future[object] = Future()
    threading.Timer(0, lambda: found.set_result(seen())).start()
    assert found.result(5) == (request_here, "span")


def test_thread_started_twice_says_what_python_says(request_here: Inbound):
    thread = threading.Thread(target=seen)
    thread.start()
    with pytest.raises(RuntimeError, match="once"):
        thread.start()
    thread.join()


def test_a_thread_that_could_not_start_can_be_started_later(request_here: Inbound, monkeypatch: pytest.MonkeyPatch):
    def none_left(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(seen()))
    starter = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
    with monkeypatch.context() as patch:
        patch.setattr(threading, starter, none_left)
        with pytest.raises(RuntimeError, match="new thread"):
            thread.start()
    thread.start()
    thread.join()
    assert found == [(request_here, "span")]


def test_pool_jobs_see_their_own_submitter_and_nothing_else():
    with ThreadPoolExecutor(1) as pool:
        first, second = Inbound(), Inbound()
        token = current.set(first)
        one = pool.submit(seen)  # starts the pool's only thread
        current.set(second)
        two = pool.submit(seen)
        current.reset(token)
        none = pool.submit(seen)
        assert [job.result(5)[0] for job in (one, two, none)] == [first, second, None]


def test_pool_thread_started_inside_a_request_keeps_nothing(request_here: Inbound):
    found: list[object] = []
    with ThreadPoolExecutor(1, initializer=lambda: found.append(seen())) as pool:
        assert pool.submit(seen).result(5) == (request_here, "span")
    assert found == [(None, None)]


def test_thread_started_by_a_pool_job_carries_on(request_here: Inbound):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(in_thread).result(5) == (request_here, "span")


def test_pool_job_that_raises_leaves_nothing_behind(request_here: Inbound):
    with ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(lambda: 1 / 0).exception(5), ZeroDivisionError)
        token = current.set(None)
        assert pool.submit(current.get).result(5) is None
        current.reset(token)


def test_pool_map_and_keyword_arguments(request_here: Inbound):
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: current.get(), range(3))) == [request_here] * 3
        assert pool.submit(lambda fn, pool: (fn, pool, current.get()), fn=1, pool=2).result(5) == (1, 2, request_here)


async def test_asyncio_task(request_here: Inbound):
    async def later() -> object:
        await asyncio.sleep(0)
        return seen()

    assert await asyncio.create_task(later()) == (request_here, "span")


async def test_asyncio_to_thread(request_here: Inbound):
    assert await asyncio.to_thread(seen) == (request_here, "span")


async def test_run_in_executor(request_here: Inbound):
    assert await asyncio.get_running_loop().run_in_executor(None, seen) == (request_here, "span")


async def test_anyio_thread(request_here: Inbound):
    assert await anyio.to_thread.run_sync(seen) == (request_here, "span")


async def test_anyio_thread_is_clean_for_the_next_request(request_here: Inbound):
    assert (await anyio.to_thread.run_sync(seen))[0] is request_here
    token = current.set(None)
    assert (await anyio.to_thread.run_sync(seen))[0] is None
    current.reset(token)


def test_follow_twice_is_follow_once():
    wrapped = threading.Thread.start, ThreadPoolExecutor.submit
    threads.follow()
    assert (threading.Thread.start, ThreadPoolExecutor.submit) == wrapped


def test_unfollow_takes_it_back(request_here: Inbound):
    threads.unfollow()
    assert in_thread() == (None, None)

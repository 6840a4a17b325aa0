"""One thread per process, whatever is submitted from wherever."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
from contextvars import ContextVar

import pytest

request: ContextVar[str] = ContextVar("request", default="none")


async def thread_name() -> str:
    return threading.current_thread().name


def test_the_thread_starts_with_the_first_work_and_is_one(background):
    assert "at rest" in repr(background)
    names = {background.submit(thread_name).result(5) for _ in range(3)}
    assert names == {"test"}
    assert "running" in repr(background)
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "test"] == [True]


def test_a_hundred_first_submitters_share_it(background):
    barrier, idents = threading.Barrier(100), set()

    async def ident():
        return threading.get_ident()

    def submit():
        barrier.wait(10)
        idents.add(background.submit(ident).result(10))

    threads = [threading.Thread(target=submit) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(idents) == 1


def test_nothing_of_the_request_that_started_it_sticks(background):
    async def seen():
        return request.get()

    called = []
    token = request.set("GET /")
    try:
        assert background.submit(seen).result(5) == "none"
        background.call_soon(lambda: called.append(request.get()))
        background.submit(seen).result(5)
    finally:
        request.reset(token)
    assert called == ["none"]


def test_cancelling_the_future_cancels_the_task(background):
    started, cancelled = threading.Event(), threading.Event()

    async def work():
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    future = background.submit(work)
    assert started.wait(5)
    future.cancel()
    assert cancelled.wait(5)


def test_errors_reach_the_submitter(background):
    async def work():
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        background.submit(work).result(5)


def test_stopping_ends_all_work_and_later_work_starts_anew(background):
    started, ended = threading.Event(), []

    async def work():
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)  # an end that takes a moment
            ended.append(True)

    background.submit(work)
    assert started.wait(5)
    background.stop(5)
    assert ended == [True]
    assert background.submit(thread_name).result(5) == "test"


def test_work_that_will_not_end_is_left_behind_and_said(background, caplog):
    started, let_go = threading.Event(), threading.Event()

    async def work():
        started.set()
        let_go.wait(10)  # blocks the loop, as a mistake would

    background.submit(work)
    assert started.wait(5)
    background.stop(0.05)
    assert "did not end within 0.05 s" in caplog.text
    let_go.set()


@pytest.mark.parametrize("turns", range(8))
def test_a_task_that_never_began_does_not_drop_what_it_was_to_await(background, turns):
    """As anyio's task groups have while they connect; a coroutine that was never awaited would be an error here."""
    ended, stopping = [], threading.Event()

    async def inner():
        await asyncio.sleep(60)

    async def outer(awaitable):
        try:
            await awaitable
        finally:
            ended.append(True)

    async def work():
        background.stop()  # on its own thread it only asks for the end
        for _ in range(turns):
            await asyncio.sleep(0)
        task = asyncio.create_task(outer(inner()))
        stopping.set()
        await task

    thread = background._started().thread
    background.submit(work)
    thread.join(5)
    assert not thread.is_alive()
    gc.collect()
    assert len(ended) == stopping.is_set()


def test_it_knows_itself(background):
    async def asked():
        return background.is_current

    assert background.submit(asked).result(5)
    assert not background.is_current


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, where every warning is an error. (Debug mode would tell of slow machines too.)"""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join((root, f"{root}/registry", f"{root}/tests/discovery"))
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env={"PYTHONPATH": path, "PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


def test_the_interpreters_end_is_quiet():
    done = run("""
        import asyncio
        from meshsdk.discovery import Background
        background = Background()
        async def work():
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0)
                print("ended")
        background.submit(work)
        background.submit(asyncio.sleep, 0).result()
    """)
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n", "", 0)


def test_a_forked_child_has_its_own_and_the_parents_goes_on():
    done = run("""
        import asyncio, os, socket, sys, threading
        from meshsdk.discovery import Background
        background = Background()

        near, far = socket.socketpair()
        async def echo():  # stands on a socket of the parent's epoll object
            reader, writer = await asyncio.open_connection(sock=near)
            try:
                while data := await reader.readline():
                    writer.write(data)
            finally:
                writer.close()
                print("closed in", "the child" if os.getpid() != parent else "the parent", flush=True)

        async def ident():
            return os.getpid(), threading.current_thread().name

        parent = os.getpid()
        background.submit(echo)
        background.submit(asyncio.sleep, 0.05).result()
        pid = os.fork()
        if pid == 0:
            assert background.submit(ident).result(5) == (os.getpid(), "meshsdk")
            sys.exit(0)  # an ordinary end, with all of the interpreter's
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        far.settimeout(5)
        for _ in range(3):
            far.sendall(b"still there\\n")
            assert far.recv(100) == b"still there\\n"
        assert background.submit(ident).result(5)[0] == parent
        far.close()
    """)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == "closed in the parent\n"


def test_a_fork_while_another_thread_holds_the_lock():
    done = run("""
        import asyncio, os, sys, threading
        from meshsdk.discovery import Background
        background = Background()
        background._lock.acquire()
        pid = os.fork()
        if pid == 0:
            background.submit(asyncio.sleep, 0).result(5)
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        background._lock.release()
    """)
    assert (done.stderr, done.returncode) == ("", 0)

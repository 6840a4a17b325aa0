"""Forked children watch for themselves, and the parent goes on. Each test is a program of its own."""

from __future__ import annotations

import pytest

from tests.discovery.test_background import run

COMMON = """
    import asyncio, multiprocessing, os, sys, time
    from meshsdk.discovery import Background, Directory
    from meshsdk_registry import Consul, Registration
    from meshsdk_registry.model import Instance

    URL = {url!r}

    def until(condition, seconds=5.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.002)

    def register(port):
        async def work():
            async with Consul(URL) as consul:
                new = Registration("payments", f"payments-{{port}}", "127.0.0.1", port, ttl=60)
                await consul.register(new)
                await consul.pass_ttl(new.check_id)
        asyncio.run(work())

    def ports(cluster):
        return sorted(endpoint.port for endpoint in cluster.snapshot.endpoints)

    background = Background()
    directory = Directory(lambda: Consul(URL), "checkout", background=background, sink=lambda event: None)
"""


@pytest.fixture
def program(dev_agent):
    def start(text: str):
        done = run(COMMON.format(url=dev_agent.url) + text)
        assert (done.stderr, done.returncode) == ("", 0)
        return done.stdout

    return start


def test_a_child_by_os_fork(program):
    out = program("""
    register(8001)
    cluster = directory.cluster("payments")
    exchange = cluster.in_flight
    pid = os.fork()
    if pid == 0:
        assert directory.peek("payments") is None, "cold: the next call starts a watch of its own"
        assert directory.status()[0].watched is False
        began = time.monotonic()
        assert ports(directory.cluster("payments")) == [8001], "known at once"
        assert time.monotonic() - began < 0.5
        until(lambda: directory.status()[0].connected)
        register(8002)
        until(lambda: ports(directory.peek("payments")) == [8001, 8002])
        assert ports(directory.cluster("payments")) == [8001, 8002]
        print("child", flush=True)
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    until(lambda: ports(cluster) == [8001, 8002])
    register(8003)
    until(lambda: ports(cluster) == [8001, 8002, 8003])
    assert directory.status()[0].connected
    print("parent")
    """)
    assert out.split() == ["child", "parent"]


def test_a_child_by_multiprocessing(program):
    out = program("""
    def child():
        cluster = directory.cluster("payments")
        until(lambda: directory.status()[0].connected)
        register(8002)
        until(lambda: ports(cluster) == [8001, 8002])
        directory.cluster("orders")
        print("child", flush=True)

    register(8001)
    cluster = directory.cluster("payments")
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(20)
    assert process.exitcode == 0, process.exitcode
    until(lambda: ports(cluster) == [8001, 8002])
    print("parent")
    """)
    assert out.split() == ["child", "parent"]


def test_a_preloaded_master_that_never_called_and_several_workers(program):
    out = program("""
    register(8001)
    pids = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            assert ports(directory.cluster("payments")) == [8001]
            sys.exit(0)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0, 0]
    assert "at rest" in repr(background), "the master has no watch"
    print("parent")
    """)
    assert out.split() == ["parent"]


def test_a_fork_amid_a_call_and_while_the_lock_is_held(program):
    out = program("""
    from meshsdk.core.model import Call
    register(8001)
    cluster = directory.cluster("payments")
    cluster.exchange(Call("GET")).begin()
    assert cluster.in_flight == 1
    directory._lock.acquire()
    pid = os.fork()
    if pid == 0:
        assert cluster.in_flight == 0, "the parent's call is not ours"
        assert directory.cluster("payments") is cluster
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    directory._lock.release()
    assert cluster.in_flight == 1
    print("parent")
    """)
    assert out.split() == ["parent"]


def test_the_end_without_closing_is_quiet(program):
    out = program("""
    register(8001)
    directory.cluster("payments")
    print("done")
    """)
    assert out.split() == ["done"]

"""The workers' ledger. Invariant: whichever worker asks, a client gets what one bucket gives, and is connected as often
as all workers together say.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshsdk.core.token_bucket import Bucket, TokenBuckets
from meshsdk_sidecar.gateway import ledger as module
from meshsdk_sidecar.gateway.clients import Clients
from meshsdk_sidecar.gateway.config import GatewayLimits
from meshsdk_sidecar.gateway.ledger import Ledger, memory

WORKERS = 3


@pytest.fixture
def descriptor() -> Iterator[int]:
    found = memory(WORKERS)
    yield found
    os.close(found)


@pytest.fixture
def ledgers(descriptor) -> list[Ledger]:
    return [Ledger(descriptor, WORKERS, number) for number in range(WORKERS)]


steps = st.lists(st.tuples(st.integers(0, WORKERS - 1), st.sampled_from("abc"), st.integers(0, 2000)), max_size=100)
many = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(steps)
def test_whoever_asks_it_is_one_bucket(steps):
    descriptor = memory(WORKERS)
    ledgers = [Ledger(descriptor, WORKERS, number) for number in range(WORKERS)]
    alone, now = TokenBuckets(2.0, 3, 10), 0.0
    for worker, key, pause in steps:
        now += pause / 1000
        assert ledgers[worker].take(Bucket(2.0, 3), key, now) == alone.take(key, now)
    os.close(descriptor)


@many
@given(st.lists(st.tuples(st.integers(0, WORKERS - 1), st.sampled_from("abc"), st.booleans()), max_size=60))
def test_whoever_counts_it_is_one_sum(steps):
    descriptor = memory(WORKERS)
    ledgers = [Ledger(descriptor, WORKERS, number) for number in range(WORKERS)]
    counts: Counter[tuple[int, str]] = Counter()
    for worker, key, more in steps:
        counts[worker, key] += 1 if more or not counts[worker, key] else -1
        told = ledgers[worker].count(key, counts[worker, key])
        assert told == sum(counts[other, key] for other in range(WORKERS))
    os.close(descriptor)


def test_a_worker_that_begins_again_has_no_connections(descriptor, ledgers):
    for number, each in enumerate(ledgers):
        each.count("a", number + 1)
    again = Ledger(descriptor, WORKERS, 1)
    assert again.count("b", 0) == 0
    assert ledgers[0].count("a", 1) == 4
    assert again.count("a", 5) == 9


def test_where_there_is_no_room_the_one_with_least_is_forgotten(descriptor, monkeypatch):
    monkeypatch.setattr(module, "_RATE_SETS", 1)
    monkeypatch.setattr(module, "_CONNECTION_SETS", 1)
    one, other = (Ledger(descriptor, WORKERS, number) for number in range(2))
    bucket = Bucket(0.001, 1)
    for number in range(8):
        assert one.take(bucket, str(number), float(number)) == 0
        one.count(str(number), 9 - number)
    assert all(other.take(bucket, str(number), 10.0) > 0 for number in range(8))
    assert other.take(bucket, "new", 10.0) == 0
    assert other.take(bucket, "7", 10.0) > 0
    assert other.take(bucket, "0", 10.0) == 0, "its bucket is full before all others: it was forgotten"

    assert one.count("new", 1) == 1
    assert other.count("7", 3) == 3, "it had the fewest, and was forgotten"
    assert one.count("7", 2) == 5, "and is right again"
    assert other.count("0", 1) == 10


def test_what_nobody_has_written_takes_no_memory(descriptor, ledgers):
    assert ledgers[0].take(Bucket(1.0, 1), "a", 0.0) == 0
    ledgers[1].count("a", 1)
    taken = os.fstat(descriptor).st_blocks * 512
    assert os.fstat(descriptor).st_size > 3 << 20
    assert taken <= 5 * 4096, "a page each, and the seed's; a huge page would be 2 MiB"


def test_clients_of_two_workers_are_the_same(ledgers):
    limits = GatewayLimits(requests_per_second=1.0, burst=2, connections_per_client=2)
    one, other = (Clients(limits, (), each) for each in ledgers[:2])
    assert [each.wait(address, 5.0) > 0 for each, address in (
        (one, "192.0.2.1"), (other, "192.0.2.1"), (one, "::ffff:192.0.2.1"), (other, "192.0.2.2"),
    )] == [False, False, True, False]  # fmt: skip
    assert [each.connected("192.0.2.1") for each in (one, other, one)] == [True, True, False]
    one.gone("192.0.2.1")
    assert not other.connected("192.0.2.1"), "two are left"
    for each in (one, other, other):
        each.gone("192.0.2.1")
    assert one.connected("192.0.2.1")


TAKES = """
import sys
from meshsdk.core.token_bucket import Bucket
from meshsdk_sidecar.gateway.ledger import Ledger
number, bucket = int(sys.argv[2]), Bucket(0.001, 5000)
ledger = Ledger(int(sys.argv[1]), 3, number)
print("begun", flush=True)
sys.stdin.readline()
print(sum(ledger.take(bucket, "a", 1.0) == 0 for _ in range(4000)))
"""


def test_processes_that_ask_at_once_get_no_token_twice(descriptor):
    words = [sys.executable, "-P", "-c", TAKES, str(descriptor)]
    processes = [
        subprocess.Popen([*words, str(number)], pass_fds=[descriptor], stdin=-1, stdout=-1, text=True)
        for number in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert sum(int(process.communicate(timeout=30)[0]) for process in processes) == 5000


HOLDS = """
import fcntl, sys
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a process's locks are looked at in /proc")
def test_a_worker_that_is_killed_holds_nobody_up(descriptor, ledgers):
    words = [sys.executable, "-P", "-c", HOLDS, str(descriptor)]
    with subprocess.Popen(words, pass_fds=[descriptor], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert f" {process.pid} " in Path("/proc/locks").read_text()
        process.kill()
        process.wait()
        assert ledgers[0].take(Bucket(1.0, 1), "a", 0.0) == 0

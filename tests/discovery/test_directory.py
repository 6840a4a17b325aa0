"""What callers see, against a Consul that says what the test wants."""

from __future__ import annotations

import asyncio
import threading
import time
from math import inf

import pytest
import tenacity

from meshsdk.core.attempt import Final, Retry
from meshsdk.core.model import Call, Failure, Phase
from meshsdk.discovery import Directory
from meshsdk.errors import ConfigError, UnknownService
from meshsdk_registry import Consul, Denied, Misunderstood, NoLeader, ServerFault, Unreachable
from tests.discovery.scripted import Scripted, instance, until

REFUSED = Unreachable("GET /v1/health/service/payments at http://scripted:8500: connection refused")
POLICY = "version: 1\ntimeouts: {request: 3s}\n"


def ports(cluster) -> list[int]:
    return [endpoint.port for endpoint in cluster.snapshot.endpoints]


def test_the_first_call_waits_for_consul_and_later_ones_peek(directory, consul):
    consul.place("payments", instance(1), instance(2))
    consul.write(payments=POLICY)
    found = directory()
    assert found.peek("payments") is None
    cluster = found.cluster("payments")
    assert ports(cluster) == [8001, 8002]
    assert cluster.plan.version.startswith("payments@")
    assert found.peek("payments") is cluster
    assert found.cluster("payments") is cluster


async def test_the_same_from_asyncio_without_holding_up_the_loop(directory, consul):
    consul.hanging = True
    consul.place("payments", instance(1))
    found, ticks = directory(), 0
    task = asyncio.create_task(found.acluster("payments"))
    for _ in range(20):
        await asyncio.sleep(0.001)
        ticks += 1
    assert not task.done()
    consul.hanging = False
    assert ports(await task) == [8001]
    assert ticks == 20


async def test_a_cancelled_first_call_leaves_the_watch_to_the_others(directory, consul):
    consul.hanging = True
    consul.place("payments", instance(1))
    found = directory()
    first, second = (asyncio.create_task(found.acluster("payments")) for _ in range(2))
    await asyncio.sleep(0.01)
    first.cancel()
    consul.hanging = False
    assert ports(await second) == [8001]
    with pytest.raises(asyncio.CancelledError):
        await first
    assert consul.asked == ["payments"]


def test_a_hundred_first_callers_share_one_watch(directory, consul):
    consul.place("payments", instance(1))
    found, clusters, barrier = directory(first_wait=10.0), [], threading.Barrier(100)

    def call():
        barrier.wait(10)
        clusters.append(found.cluster("payments"))

    threads = [threading.Thread(target=call) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(clusters) == 100
    assert len({id(cluster) for cluster in clusters}) == 1
    assert (consul.made, consul.asked) == (1, ["payments"])


def test_consul_says_there_is_none(directory):
    cluster = directory().cluster("payments")
    assert cluster.snapshot.endpoints == ()
    assert cluster.snapshot.source == "consul"


def test_consul_cannot_be_asked_and_nothing_is_remembered(directory, consul):
    consul.failure = REFUSED
    found, began = directory(first_wait=0.2), time.monotonic()
    with pytest.raises(UnknownService, match=r"^payments: .*scripted:8500: connection refused \(since 0\.\d s\)"):
        found.cluster("payments")
    assert 0.1 < time.monotonic() - began < 2, "a Consul that is starting is given the time"
    began = time.monotonic()
    for _ in range(10):
        with pytest.raises(UnknownService):
            found.cluster("payments")
    assert time.monotonic() - began < 0.1, "later calls do not wait"
    consul.place("payments", instance(1))
    consul.failure = None
    until(lambda: found.status()[0].connected)
    assert ports(found.cluster("payments")) == [8001]


def test_consul_that_starts_a_moment_later_is_waited_for(directory, consul):
    consul.failure = REFUSED
    consul.place("payments", instance(1))
    timer = threading.Timer(0.1, lambda: setattr(consul, "failure", None))
    timer.start()
    assert ports(directory(first_wait=5.0).cluster("payments")) == [8001]
    timer.join()


def test_a_hanging_consul_is_left_in_bounded_time(directory, consul):
    consul.hanging = True
    found, began = directory(first_wait=0.1), time.monotonic()
    with pytest.raises(UnknownService, match=r"Consul at http://scripted:8500 has not answered within 0\.1 s"):
        found.cluster("payments")
    assert time.monotonic() - began < 1
    assert found.status()[0].age == inf


async def test_the_same_in_asyncio(directory, consul):
    consul.hanging = True
    with pytest.raises(UnknownService, match="has not answered"):
        await directory(first_wait=0.05).acluster("payments")


@pytest.mark.parametrize(
    "failure", [REFUSED, Denied("403"), NoLeader("500 no leader"), Misunderstood("garbage"), ServerFault("500")]
)
def test_calls_to_known_services_go_on(directory, consul, failure, caplog):
    consul.place("payments", instance(1))
    found = directory()
    cluster = found.cluster("payments")
    until(lambda: found.status()[0].connected)
    consul.failure = failure
    until(lambda: not found.status()[0].connected)
    first = found.status()[0].age
    until(lambda: found.status()[0].age > first)
    assert found.peek("payments") is cluster
    assert ports(cluster) == [8001]
    assert found.status()[0].error == str(failure)
    consul.place("payments", instance(2))
    consul.failure = None
    until(lambda: ports(cluster)[0] == 8002)
    assert (found.status()[0].age, found.status()[0].error) == (0.0, "")
    until(lambda: found.status()[0].policy_problem == "")


def test_going_and_coming_back_is_said_once_however_many_watch(directory, consul, caplog):
    caplog.set_level("INFO")
    found = directory()
    for name in ("a", "b", "c"):
        found.cluster(name)
    consul.failure = REFUSED
    until(lambda: not any(status.connected for status in found.status()))
    consul.failure = None
    until(lambda: all(status.connected for status in found.status()) and "Consul is back" in caplog.text)
    assert caplog.text.count("Consul cannot be asked, what was last known stays in force") == 1
    assert caplog.text.count("Consul is back after") == 1


def test_what_consul_refuses_to_tell_is_said_of_each(directory, consul, caplog):
    caplog.set_level("INFO")
    consul.place("payments", instance(1))
    consul.policy_failure = Denied("403: key_prefix read on mesh/policy/ is missing")
    found = directory()
    cluster = found.cluster("payments")
    assert (ports(cluster), cluster.plan.version) == ([8001], "defaults"), "policies failed: nobody waits for them"
    (status,) = found.status()
    assert status.policy_problem == "policies cannot be read: 403: key_prefix read on mesh/policy/ is missing"
    assert "Consul refuses to tell of mesh/policy/: 403" in caplog.text
    consul.policy_failure = None
    until(lambda: found.status()[0].policy_problem == "")
    assert "Consul answers for mesh/policy/ again" in caplog.text


def test_policies_change_under_way_and_bad_ones_are_said(directory, consul):
    consul.place("payments", instance(1))
    found = directory()
    cluster = found.cluster("payments")
    consul.write(payments=POLICY, _mesh="version: 1\ntelemetry: {access_log: all}\n")
    until(lambda: cluster.plan.timeouts.request == 3)
    assert cluster.plan.access_log == "all"
    good = cluster.plan.version
    assert found.policy_versions() == {"payments": good}
    consul.write(payments=b"\0\xff")
    until(lambda: found.status()[0].policy_problem)
    assert cluster.plan.timeouts.request == 3
    assert "is rejected" in found.status()[0].policy_problem
    consul.write()
    until(lambda: cluster.plan.version == "defaults")
    assert found.status()[0].policy_problem == ""


def test_a_cold_start_from_disk(directory, consul, tmp_path, caplog):
    consul.place("payments", instance(1), instance(2))
    consul.write(payments=POLICY)
    first = directory(state_dir=tmp_path / "state")
    version = first.cluster("payments").plan.version
    first.close()
    consul.failure = REFUSED
    found, began = directory(state_dir=tmp_path / "state"), time.monotonic()
    cluster = found.cluster("payments")
    assert time.monotonic() - began < 1, "no need to wait for a Consul that refuses"
    assert (ports(cluster), cluster.snapshot.source, cluster.plan.version) == ([8001, 8002], "disk", version)
    (status,) = found.status()
    assert (status.source, status.connected) == ("disk", False)
    assert 0 <= status.age < 10
    with pytest.raises(UnknownService, match="nothing is remembered"):
        found.cluster("orders")
    consul.place("payments", instance(3))
    consul.failure = None
    until(lambda: ports(cluster)[0] == 8003)
    assert [status.source for status in found.status() if status.service == "payments"] == ["consul"]


def test_a_cold_start_from_disk_while_consul_hangs(directory, consul, tmp_path):
    consul.place("payments", instance(1))
    first = directory(state_dir=tmp_path / "state")
    first.cluster("payments")
    first.close()
    consul.hanging = True
    cluster = directory(state_dir=tmp_path / "state", first_wait=0.3).cluster("payments")
    assert (ports(cluster), cluster.snapshot.source) == ([8001], "disk")


def test_a_bad_document_at_a_cold_start_leaves_the_remembered_one(directory, consul, tmp_path):
    consul.place("payments", instance(1))
    consul.write(payments=POLICY)
    first = directory(state_dir=tmp_path / "state")
    version = first.cluster("payments").plan.version
    first.close()
    consul.write(payments="nonsense")
    found = directory(state_dir=tmp_path / "state")
    assert found.cluster("payments").plan.version == version
    assert "is rejected" in found.status()[0].policy_problem


def test_changes_reach_the_disk_soon(directory, consul, tmp_path):
    consul.place("payments", instance(1))
    found = directory(state_dir=tmp_path)
    found.cluster("payments")
    until(
        lambda: "8001" in (tmp_path / "payments.json").read_text() if (tmp_path / "payments.json").exists() else False
    )
    consul.place("payments", instance(2))
    until(lambda: "8002" in (tmp_path / "payments.json").read_text())


def test_limbo_in_real_time(directory, consul):
    consul.place("payments", instance(1), instance(2))
    found = directory(grace=0.2)
    cluster = found.cluster("payments")
    consul.place("payments", instance(1))
    until(lambda: found.status()[0].limbo == 1)
    assert ports(cluster) == [8001, 8002]
    until(lambda: ports(cluster) == [8001])
    assert found.status()[0].limbo == 0


@pytest.mark.parametrize("name", ["", "two words", "a/b", "../etc", "Payments", "a.b", "-a", "a-", "x" * 64, "ü"])
def test_names_that_no_service_can_have(directory, consul, name):
    found = directory()
    with pytest.raises(ConfigError, match="write a DNS label, small letters, digits and dashes"):
        found.cluster(name)
    assert (found.status(), consul.made) == ((), 0)


def test_a_client_that_cannot_be_made_is_tried_again(directory, consul, monkeypatch):
    monkeypatch.setattr("meshsdk.discovery.watcher.RESTART_PAUSE", 0.02)
    consul.place("payments", instance(1))
    there = threading.Event()

    def make():
        if not there.is_set():
            raise OSError("token file /nowhere: No such file or directory")
        return consul

    found = directory(make)
    with pytest.raises(UnknownService, match="no client of Consul could be made: token file /nowhere"):
        found.cluster("payments")
    there.set()
    until(lambda: found.status()[0].connected)
    assert ports(found.cluster("payments")) == [8001]


def test_a_mistake_of_ours_does_not_end_a_watch_unseen(directory, consul, monkeypatch, caplog):
    monkeypatch.setattr("meshsdk.discovery.watcher.RESTART_PAUSE", 0.02)
    consul.place("payments", instance(1))
    found = directory()
    cluster = found.cluster("payments")
    monkeypatch.setattr(cluster.__class__, "update", lambda self, snapshot: 1 / 0)
    consul.place("payments", instance(2))
    until(lambda: "a watch broke off" in caplog.text)
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    until(lambda: ports(cluster)[0] == 8002)


# --- services that are no longer called -------------------------------------------------------------------


def test_a_service_nobody_calls_is_no_longer_watched_and_comes_back_at_once(directory, consul):
    consul.place("payments", instance(1))
    found = directory(idle=0.1)
    cluster = found.cluster("payments")
    until(lambda: not found.status()[0].watched)
    (status,) = found.status()
    assert (status.connected, ports(cluster)) == (False, [8001])
    consul.place("payments", instance(2))
    consul.hanging = True
    assert found.cluster("payments") is cluster, "the last snapshot serves at once"
    consul.hanging = False
    until(lambda: ports(cluster)[0] == 8002)


def test_one_that_is_called_stays_watched(directory, consul):
    consul.place("payments", instance(1))
    found = directory(idle=0.2)
    cluster = found.cluster("payments")
    deadline = time.monotonic() + 0.7
    while time.monotonic() < deadline:
        assert (found.peek("payments") or found.cluster("payments")) is cluster
        assert found.status()[0].watched
        time.sleep(0.005)
    assert consul.asked == ["payments"]


def test_one_with_nothing_to_remember_is_forgotten(directory):
    found = directory(idle=0.05)
    found.cluster("no-such-service")
    until(lambda: found.status() == ())


# --- the end ----------------------------------------------------------------------------------------------


def test_closing_stops_the_watches_but_not_the_calls(directory, consul):
    consul.place("payments", instance(1))
    found = directory()
    cluster = found.cluster("payments")
    found.close()
    found.close()
    assert consul.closed == 1
    assert found.peek("payments") is found.cluster("payments") is cluster
    assert found.status()[0].watched is False
    with pytest.raises(UnknownService, match="the mesh of this process is closed"):
        found.cluster("orders")


async def test_closing_from_asyncio(directory, consul):
    found = directory()
    await found.acluster("payments")
    await found.aclose()
    await found.aclose()
    assert consul.closed == 1


def test_closing_what_was_never_used(directory, consul):
    directory().close()
    assert consul.made == 0


def test_a_call_on_the_background_itself_does_not_wait_for_itself(directory, consul, background):
    consul.place("payments", instance(1))
    found = directory()

    async def call():
        return found.cluster("payments")

    began = time.monotonic()
    with pytest.raises(UnknownService):
        background.submit(call).result(5)
    assert time.monotonic() - began < 1
    until(lambda: found.status()[0].connected)
    assert ports(background.submit(call).result(5)) == [8001]


def test_peek_is_one_dictionary_lookup(directory, consul):
    found: Directory = directory()
    found.cluster("payments")
    assert found.peek.__self__ is found._warm


def test_an_unreachable_consul_is_named(directory, unused_port):
    url = f"http://127.0.0.1:{unused_port}"
    with pytest.raises(UnknownService, match=rf"{url}.*nothing is remembered"):
        directory(lambda: Consul(url), first_wait=0.2).cluster("payments")


def test_scripted_is_like_consul():
    """The stand-in takes what the real one takes."""
    for name in ("instances", "keys", "aclose"):
        assert hasattr(Consul, name)
        assert hasattr(Scripted, name)


def test_a_served_process_follows_its_own_documents_without_watching_its_instances(directory, consul):
    consul.write(checkout="version: 1\ntelemetry: {access_log: all}\n")
    found = directory()
    until(lambda: found.own_plan().access_log == "all")
    assert consul.asked == []
    consul.write(checkout="version: 1\ntelemetry: {access_log: 'off'}\n")
    until(lambda: found.own_plan().access_log == "off")
    found.close()


def test_a_users_tenacity_strategies_reach_the_clusters(directory, consul):
    consul.place("payments", instance(1), instance(2))
    found = directory(wait=tenacity.wait_fixed(0.125), stop=tenacity.stop_after_attempt(2))
    cluster = found.cluster("payments")
    exchange = cluster.exchange(Call("GET"))
    refused = Failure(Phase.NOT_CONNECTED, "connect-failure")
    assert exchange.failed(exchange.begin(), refused) == Retry(0.125, "connect-failure")
    assert isinstance(exchange.failed(exchange.begin(), refused), Final)
    assert exchange.reason == "stopped"

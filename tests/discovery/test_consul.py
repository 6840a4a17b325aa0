"""A directory on a real Consul and on the dev agent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from meshsdk.errors import UnknownService
from meshsdk_registry import Consul, Registration
from tests.discovery.scripted import until


class Operator:
    """What people and other processes do to Consul."""

    def __init__(self, url: str) -> None:
        self._url = url

    def do(self, work: Callable[[Consul], Awaitable[object]]) -> None:
        async def run() -> None:
            async with Consul(self._url) as consul:
                await work(consul)

        asyncio.run(run())

    def register(self, service: str, *ports: int) -> None:
        async def work(consul: Consul) -> None:
            for port in ports:
                new = Registration(service, f"{service}-{port}", "127.0.0.1", port, ttl=60)
                await consul.register(new)
                await consul.pass_ttl(new.check_id)

        self.do(work)

    def write(self, service: str, text: bytes) -> None:
        self.do(lambda consul: consul.put(f"mesh/policy/{service}", text))


@pytest.fixture(params=["dev_agent", "real_consul"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["dev_agent", "own_consul"])
def restartable(request):
    return request.getfixturevalue(request.param)


def ports(cluster, *, limbo: bool = True) -> list[int]:
    return sorted(e.port for e in cluster.snapshot.endpoints if limbo or not e.limbo)


def test_endpoints_and_policies_are_seen_within_a_second(server, directory, service):
    operator = Operator(server.url)
    operator.register(service, 8001)
    found = directory(lambda: Consul(server.url))
    cluster = found.cluster(service)
    assert ports(cluster) == [8001]

    operator.write(service, b"version: 1\ntimeouts: {request: 3s}\n")
    until(lambda: cluster.plan.timeouts.request == 3, 1.0)
    operator.register(service, 8002)
    until(lambda: ports(cluster) == [8001, 8002], 1.0)

    operator.write(service, b"version: 1\ntimeots: {request: 4s}\n")
    until(lambda: "did you mean timeouts" in found.status()[0].policy_problem, 1.0)
    assert cluster.plan.timeouts.request == 3
    operator.do(lambda consul: consul.delete(f"mesh/policy/{service}"))
    until(lambda: cluster.plan.version == "defaults", 1.0)
    assert found.status()[0].policy_problem == ""


def test_a_drain_takes_effect_at_once_and_a_loss_goes_to_limbo(server, directory, service):
    operator = Operator(server.url)
    operator.register(service, 8001, 8002, 8003)
    found = directory(lambda: Consul(server.url), grace=60.0)
    cluster = found.cluster(service)
    operator.do(lambda consul: consul.maintenance(f"{service}-8001", True, "meshsdk: draining"))
    until(lambda: ports(cluster) == [8002, 8003], 1.0)
    operator.do(lambda consul: consul.deregister(f"{service}-8001"))
    operator.do(lambda consul: consul.deregister(f"{service}-8002"))
    until(lambda: ports(cluster, limbo=False) == [8003], 1.0)
    assert ports(cluster) == [8002, 8003]


def test_consul_stops_and_starts(restartable, directory, service, tmp_path):
    operator = Operator(restartable.url)
    operator.register(service, 8001)
    operator.write(service, b"version: 1\ntimeouts: {request: 3s}\n")
    options = {"state_dir": tmp_path / "state", "grace": 60.0, "first_wait": 0.5}
    found = directory(lambda: Consul(restartable.url), **options)
    cluster = found.cluster(service)
    until(lambda: cluster.plan.timeouts.request == 3)
    until((tmp_path / "state" / f"{service}.json").exists)
    version = cluster.plan.version

    restartable.stop()
    until(lambda: not found.status()[0].connected)
    began = found.status()[0].age
    until(lambda: found.status()[0].age > began + 0.1)
    assert ports(found.cluster(service)) == [8001]
    with pytest.raises(UnknownService, match=restartable.url):
        found.cluster("never-called")
    found.close()

    started = time.monotonic()
    again = directory(lambda: Consul(restartable.url), **options)
    cluster = again.cluster(service)
    assert time.monotonic() - started < 2
    assert (ports(cluster), cluster.snapshot.source, cluster.plan.version) == ([8001], "disk", version)

    restartable.start(empty=True)
    until(lambda: again.status()[0].connected, 15)
    assert ports(cluster) == [8001], "an empty Consul does not empty its callers"
    operator.register(service, 8001, 8002)
    until(lambda: ports(cluster, limbo=False) == [8001, 8002], 1.0)
    until(lambda: cluster.plan.version == "defaults")


def test_a_directory_in_asyncio(server, directory, service):
    Operator(server.url).register(service, 8001)
    found = directory(lambda: Consul(server.url))

    async def first() -> list[int]:
        return ports(await found.acluster(service))

    assert asyncio.run(first()) == [8001]
    assert asyncio.run(first()) == [8001], "another loop of the caller's"


GARBAGE = {
    "garbage": b"\x00\x01\x02 this is no HTTP\r\n\r\n",
    "html": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<html>hi</html>",
    "403": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 17\r\n\r\nPermission denied",
    "500": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 17\r\n\r\nNo cluster leader",
    "cut": b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[{"Node"',
    "silence": b"",
}


@pytest.mark.parametrize("reply", GARBAGE.values(), ids=GARBAGE)
async def test_a_consul_that_is_none(directory, service, reply):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        if not reply:
            await reader.read()  # until the client has enough
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        found = directory(lambda: Consul(url, timeout=0.3), first_wait=0.3)
        began = time.monotonic()
        with pytest.raises(UnknownService, match=url):
            await found.acluster(service)
        assert time.monotonic() - began < 1.5
        await found.aclose()

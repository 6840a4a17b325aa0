"""What a worker knows and has: what it is told of services, its share of limits and sockets, and nothing beside."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from meshsdk.core.model import Endpoint, Snapshot
from meshsdk.core.plan import Limits
from meshsdk.core.tokens import BadToken
from meshsdk.errors import ConfigError, UnknownService
from meshsdk.policy.effective import DEFAULTS
from meshsdk.tokens import Tokens
from meshsdk_sidecar import sockets
from meshsdk_sidecar.config import Config, Service
from meshsdk_sidecar.link import AskKeys, Begin, Done, Forget, Keys, Link, Told, Watch
from meshsdk_sidecar.place import Place
from meshsdk_sidecar.pushed import OwnLoop, PushedKeys, PushedServices, shared
from meshsdk_sidecar.staff import Post
from tests.real_consul import free_ports
from tests.tokens.issuing import JWKS, POLICY, jwk, jwks, token

BEGIN = Begin(
    Config(service=Service(name="legacy")),
    "legacy",
    {},
    workers=2,
    defaults=DEFAULTS,
    identity=False,
    first_wait=1.0,
    idle=600.0,
    drain=1.0,
    explain=False,
    forward=False,
    level=20,
)
PLAN = replace(DEFAULTS, limits=Limits(5, 4, 0))


def snapshot(*ports: int) -> Snapshot:
    return Snapshot("payments", tuple(Endpoint(str(port), "127.0.0.1", port) for port in ports), "consul")


def services(asked: list, clock=lambda: 0.0, workers: int = 2) -> PushedServices:
    return PushedServices(asked.append, workers, lambda _: None, 600.0, clock=clock)


# --- services ---------------------------------------------------------------------------------------------


async def test_a_service_is_asked_for_once_and_followed_from_then_on():
    asked: list = []
    known = services(asked)
    calls = [asyncio.ensure_future(known.acluster("payments")) for _ in range(3)]
    await asyncio.sleep(0)
    assert asked == [Watch("payments")]
    assert known.peek("payments") is None
    known.hear(Told("payments", snapshot(1, 2), PLAN))
    cluster, *others = [await call for call in calls]
    assert all(other is cluster for other in others)
    assert known.peek("payments") is cluster
    assert cluster.plan.limits == Limits(3, 2, 0)

    known.hear(Told("payments", snapshot=snapshot(3)))
    assert [state.endpoint.port for state in cluster.states()] == [3]
    known.hear(Told("payments", plan=replace(PLAN, version="payments@2")))
    assert (cluster.plan.version, cluster.plan.limits) == ("payments@2", Limits(3, 2, 0))
    assert asked == [Watch("payments")]


async def test_what_nobody_knows_is_asked_for_again():
    asked: list = []
    known = services(asked)
    for _ in range(2):
        call = asyncio.ensure_future(known.acluster("payments"))
        await asyncio.sleep(0)
        known.hear(Told("payments", error=UnknownService("Consul is away", service="payments")))
        with pytest.raises(UnknownService, match="Consul is away"):
            await call
    assert asked == [Watch("payments")] * 2


async def test_without_a_control_process_what_is_known_stays_and_nothing_is_added():
    known = services([])
    call = asyncio.ensure_future(known.acluster("payments"))
    await asyncio.sleep(0)
    known.lose("it has ended")
    for again in (call, known.acluster("payments")):
        with pytest.raises(UnknownService, match="it has ended"):
            await again


async def test_an_idle_service_is_forgotten_and_one_that_is_called_is_not():
    asked: list = []
    now = 0.0
    known = services(asked, lambda: now)
    for service in ("payments", "stock"):
        call = asyncio.ensure_future(known.acluster(service))
        await asyncio.sleep(0)
        known.hear(Told(service, Snapshot(service, ()), PLAN))
        await call
    for now in (300.0, 600.0):  # noqa: B007 - the clock's
        known.sweep()
        await known.acluster("stock")
    known.sweep()
    assert asked == [Watch("payments"), Watch("stock"), Forget("payments")]
    assert [cluster.service for cluster in known] == ["stock"]
    known.hear(Told("payments", snapshot=snapshot(1)))
    assert [cluster.service for cluster in known] == ["stock"], "it was on its way when the service was forgotten"


@pytest.mark.parametrize(("limits", "each"), [((8, 4, 2), (4, 2, 1)), ((1, 3, 0), (1, 2, 0))])
def test_limits_are_those_of_the_whole_sidecar(limits, each):
    assert shared(replace(DEFAULTS, limits=Limits(*limits)), 2).limits == Limits(*each)
    assert shared(replace(DEFAULTS, limits=Limits(*limits)), 1).limits == Limits(*limits)


# --- keys of tokens ---------------------------------------------------------------------------------------


async def test_keys_are_those_that_were_told_and_asking_is_told_once_a_look():
    asked: list = []
    known = PushedKeys(asked.append)
    tokens = Tokens(OwnLoop(asyncio.get_running_loop()), source=known.source)
    known.hear(Keys({JWKS: (1, jwks(jwk()))}))  # before anybody needs them
    tokens.follow(POLICY)
    await settled()
    assert tokens.claims(POLICY, token())["sub"] == "ada"

    other = token(number=1)
    for looks in (2, 3):
        for _ in range(3):
            with pytest.raises(BadToken):
                tokens.claims(POLICY, other)
        await settled()
        assert asked == [AskKeys(JWKS)] * (looks - 1)
        known.hear(Keys({JWKS: (looks, jwks(jwk()))}))  # it was looked at, and is the same
    known.hear(Keys({JWKS: (4, jwks(jwk(), jwk(number=1)))}))
    assert tokens.claims(POLICY, other)["sub"] == "ada"
    tokens.close()
    await settled()


async def test_keys_that_cannot_be_read_leave_those_in_force():
    known = PushedKeys(lambda _: None)
    tokens = Tokens(OwnLoop(asyncio.get_running_loop()), source=known.source)
    tokens.follow(POLICY)
    await settled()
    known.hear(Keys({JWKS: (1, b"")}))  # the first look failed
    with pytest.raises(BadToken, match="not known yet"):
        tokens.claims(POLICY, token())
    known.hear(Keys({JWKS: (2, jwks(jwk()))}))
    known.hear(Keys({}))
    assert tokens.claims(POLICY, token())["sub"] == "ada"
    tokens.close()
    await settled()


async def settled() -> None:
    """What another thread would be given to do is done: here it is a task or two."""
    for _ in range(5):
        await asyncio.sleep(0)


# --- messages ---------------------------------------------------------------------------------------------


class _Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)


@pytest.mark.parametrize("size", [1, 3, 7, 10_000])
def test_messages_arrive_whole_however_they_are_cut(size):
    heard: list = []
    link, wire = Link(heard.append, lambda: None), _Wire()
    link.connection_made(wire)
    sent = [Watch("payments"), Told("payments", snapshot(1), PLAN), Done(7, {"a": 1})]
    sent.append(Told("payments", error=UnknownService("gone", service="payments")))
    for message in sent:
        link.send(message)
    for at in range(0, len(wire.written), size):
        link.data_received(wire.written[at : at + size])
    assert heard[:3] == sent[:3]
    assert repr(heard[3].error) == repr(sent[3].error)
    assert heard[3].error.service == "payments"
    link.connection_lost(None)
    link.send(sent[0])
    assert not link.stands


def test_the_first_crash_costs_no_pause_and_later_ones_double_it():
    post = Post({}, lambda *_: None, lambda _: None)
    assert [post.pause(1.0) for _ in range(9)] == [0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert post.pause(11.0) == 0.0, "it has served for a while"
    assert [post.pause(1.0) for _ in range(2)] == [0.0, 0.2]


async def test_a_process_that_ends_before_it_has_begun_is_noticed(monkeypatch):
    lost: asyncio.Queue[Post] = asyncio.Queue()
    post = Post({}, lambda *_: None, lost.put_nowait)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    await post.start(BEGIN)
    with pytest.raises(ConnectionError, match="has ended"):
        await post.do("open", ["outbound"])
    assert await post.ended() == 1
    assert await lost.get() is post, "told by the loop, soon after who asked was told"
    assert lost.empty()


async def test_one_that_is_not_there_does_nothing():
    post = Post({}, lambda *_: None, lambda _: None)
    with pytest.raises(ConnectionError, match="has ended"):
        await post.do("metrics")
    await post.end(0.0)


# --- sockets ----------------------------------------------------------------------------------------------


def numbers(hands: list[sockets.Sockets]) -> list[dict[str, list[int]]]:
    return [{name: [one.fileno() for one in each] for name, each in hand.items()} for hand in hands]


def test_each_has_sockets_of_its_own_and_all_of_one_place():
    port = free_ports(1)[0]
    found = sockets.open_several({"outbound": Place("127.0.0.1", port)}, 3)
    try:
        first, second, third = (hand["outbound"] for hand in numbers(sockets.dealt(found, 3)))
        assert len({*first, *second, *third}) == 3
        assert {one.getsockname() for one in found["outbound"]} == {("127.0.0.1", port)}
        with pytest.raises(ConfigError, match=r"Address already in use; write another outbound\.port"):
            sockets.open_several({"outbound": Place("127.0.0.1", port)}, 2)

        fewer = [hand["outbound"] for hand in numbers(sockets.dealt(found, 2))]
        assert sorted(map(len, fewer)) == [1, 2]
        more = [hand["outbound"] for hand in numbers(sockets.dealt(found, 4))]
        assert [len(each) for each in more] == [1, 1, 1, 1]
        assert more[3] == more[0]
    finally:
        sockets.close(found)


def test_held_sockets_are_kept_and_others_are_opened():
    old, new = free_ports(2)
    (outbound,) = sockets.open_sockets({"outbound": Place("127.0.0.1", old)})["outbound"]
    places = {"outbound": Place("127.0.0.1", old), "upstreams.a@127.0.0.1:1": Place("127.0.0.1", new)}
    found = sockets.open_several(places, 2, held=[outbound])
    try:
        assert found["outbound"] == [outbound]
        assert len(found["upstreams.a@127.0.0.1:1"]) == 2
        socket.create_connection(("127.0.0.1", new), 2).close()
    finally:
        sockets.close(found)


# --- memory -----------------------------------------------------------------------------------------------


def test_a_worker_has_loaded_only_what_serving_needs():
    program = "import sys, json, meshsdk_sidecar.worker, uvloop; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "meshsdk_sidecar.proxy.plane" in loaded, "it is the real one"
    assert not loaded & {"consul", "httpcore", "httpx", "meshsdk_registry", "pydantic", "requests", "rich", "typer"}
    assert not loaded & {"meshsdk.discovery", "meshsdk.mesh", "meshsdk.client", "meshsdk.cli", "meshsdk_sidecar.mesh"}

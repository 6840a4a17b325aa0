"""Identities from a real Consul, from the dev agent, and from a scripted one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from meshsdk.discovery.background import Background
from meshsdk.identity import Expired, Identity, Issued, Material, NoIdentity, Recovered, Trouble
from meshsdk.identity.events import Event
from meshsdk.identity.providers import consul as provider_module
from meshsdk.identity.providers.consul import ConsulProvider
from meshsdk.identity.providers.provider import examine_here
from meshsdk.wire.security import PeerRejected
from meshsdk_registry import Answer, Consul, Leaf, Root, Roots, Unreachable
from meshsdk_registry.agent import running_agent
from tests.identity.certificates import DOMAIN, Pair, id_of, issue, leaf
from tests.identity.conftest import WallClock
from tests.identity.ends import KINDS

exchange = KINDS["threads"]


def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(params=["dev_agent", "real_consul"])
def server(request: pytest.FixtureRequest):
    return request.getfixturevalue(request.param)


@pytest.fixture
def identity(background: Background) -> Iterator[Callable[[str, str], Identity]]:
    made: list[Identity] = []

    def make(url: str, service: str) -> Identity:
        made.append(Identity(ConsulProvider(lambda: Consul(url), service), background))
        return made[-1]

    yield make
    for one in made:
        one.close()


def do(url: str, work: Callable[[Consul], Awaitable[object]]) -> None:
    async def run() -> None:
        async with Consul(url) as consul:
            await work(consul)

    asyncio.run(run())


# --- real ones ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
def test_two_services_of_one_ca(server, identity, kind: str):
    web, api = identity(server.url, "web"), identity(server.url, "api")
    assert web.wait_ready(15)
    assert api.wait_ready(15)
    seen = KINDS[kind](web.server_context(), api.client_security("web"))
    assert (seen.error, seen.answer, seen.read) == (None, b"pong", b"ping")
    assert seen.peer.startswith("spiffe://")
    assert seen.peer.endswith(".consul/ns/default/dc/dc1/svc/api")
    wrong = KINDS[kind](web.server_context(), api.client_security("billing"))
    assert isinstance(wrong.error, PeerRejected)
    assert wrong.read == b""


def test_new_roots_are_trusted_at_once_when_the_ca_rotates(own_consul, identity):
    web, api = identity(own_consul.url, "web"), identity(own_consul.url, "api")
    assert web.wait_ready(15)
    assert api.wait_ready(15)
    do(own_consul.url, lambda consul: consul.rotate_ca())
    until(lambda: all(_roots(one) == 2 for one in (web, api)), seconds=5)
    assert exchange(web.server_context(), api.client_security("web")).answer == b"pong"


def _roots(identity: Identity) -> int:
    return identity.material.roots_pem.count("BEGIN") if identity.material else 0


def test_what_consul_said_stays_while_it_is_away(identity):
    with running_agent() as agent:
        web = identity(agent.url, "web")
        told: list[Event] = []
        web.listen(told.append)
        assert web.wait_ready(15)
        agent.stop()
        until(lambda: "away" in web.failures)
        assert exchange(web.server_context(), web.client_security("web")).answer == b"pong"
        assert web.state.name == "valid"
        assert web.state.reason
        agent.start()
        until(lambda: any(isinstance(event, Recovered) for event in told))
    assert [type(event) for event in told[:2]] == [Issued, Trouble]


def test_short_lives_and_a_rotation_without_a_failed_handshake(identity):
    """Leafs of 3 s for 5 s: renewed twice or more, rotated once, and at no moment refused."""
    with running_agent(leaf_ttl=3, rotation_jitter=0.5) as agent:
        web, api = identity(agent.url, "web"), identity(agent.url, "api")
        assert web.wait_ready(15)
        assert api.wait_ready(15)
        served = web.server_context()
        end, rotated, calls = time.monotonic() + 5, False, 0
        while time.monotonic() < end:
            assert exchange(served, api.client_security("web")).answer == b"pong"
            calls += 1
            if not rotated and time.monotonic() > end - 2.5:
                do(agent.url, lambda consul: consul.rotate_ca())
                rotated = True
            time.sleep(0.02)
        assert web.renewals >= 3
        assert calls > 50
        assert web.refusals.total == 0


def test_it_expires_when_consul_stays_away(identity):
    with running_agent(leaf_ttl=1) as agent:
        web = identity(agent.url, "web")
        told: list[Event] = []
        web.listen(told.append)
        assert web.wait_ready(15)
        agent.stop()
        until(lambda: any(isinstance(event, Expired) for event in told))
        with pytest.raises(NoIdentity, match=r"has expired; it cannot be renewed: "):
            web.client_security("web")


# --- a scripted one ----------------------------------------------------------------------------------


class Script:
    """A Consul that answers what the test says, and blocks until it says something else."""

    url = "http://scripted"

    def __init__(self) -> None:
        self.index = 1
        self.answers: dict[str, Leaf | Roots | Unreachable] = {}
        self.changed = asyncio.Event()
        self.closed = False

    def say(self, **answers: Leaf | Roots | Unreachable) -> None:
        self.index += 1
        self.answers |= {name: answer for name, answer in answers.items()}
        self.changed.set()
        self.changed = asyncio.Event()

    async def leaf(self, service: str, *, index: int = 0, wait: float = 0.0) -> Answer[Leaf]:
        assert service == "web"
        return await self._answer("leaf", index)

    async def roots(self, *, index: int = 0, wait: float = 0.0) -> Answer[Roots]:
        return await self._answer("roots", index)

    async def _answer(self, what: str, index: int):
        while index >= self.index or what not in self.answers:
            await self.changed.wait()
        answer = self.answers[what]
        if isinstance(answer, Unreachable):
            raise answer
        return Answer(answer, self.index)

    async def aclose(self) -> None:
        self.closed = True


def leaf_of(pair: Pair) -> Leaf:
    certificate = pair.certificate
    return Leaf(
        "web", id_of("web"), "01", pair.pem.decode(), pair.key_pem().decode(),
        certificate.not_valid_before_utc, certificate.not_valid_after_utc, 1,
    )  # fmt: skip


def roots_of(*pairs: Pair, domain: str = DOMAIN) -> Roots:
    roots = tuple(
        Root(f"{n}", f"root {n}", pair.pem.decode(), (), n == 0, pair.certificate.not_valid_after_utc)
        for n, pair in enumerate(pairs)
    )
    return Roots("0", domain, roots)


class Run:
    """A provider under way."""

    def __init__(self, script: Script, wall: WallClock) -> None:
        self.found: list[Material | Trouble] = []
        self.sleeps: list[asyncio.Event] = []
        self.held: asyncio.Event | None = None
        self.examining = self.examined = 0
        consul: Any = lambda: script  # noqa: E731
        self._provider = ConsulProvider(consul, "web", examine=self._examine, now=wall, sleep=self._sleep)
        self._task = asyncio.create_task(self._provider.run(self.found.append))

    async def _examine(self, *texts: str, **options: Any) -> Material:
        self.examining += 1
        assert self.examining == 1, "one after another"
        try:
            if self.held is not None:
                await self.held.wait()
            return await examine_here(*texts, **options)
        finally:
            self.examining -= 1
            self.examined += 1

    async def _sleep(self, seconds: float) -> None:
        assert seconds == provider_module.RETRY
        self.sleeps.append(asyncio.Event())
        await self.sleeps[-1].wait()

    async def settled(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        assert not self._task.done()

    async def later(self) -> None:
        self.sleeps[-1].set()
        await self.settled()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))

    @property
    def kinds(self) -> list[str]:
        return [one.kind if isinstance(one, Trouble) else "material" for one in self.found]


@pytest.fixture
async def script() -> Script:
    return Script()


@pytest.fixture
async def run(script: Script, wall: WallClock):
    found = Run(script, wall)
    yield found
    await found.stop()
    assert script.closed


async def test_both_halves_are_needed(script: Script, run: Run, ca: Pair):
    script.say(leaf=leaf_of(leaf("web", ca)))
    await run.settled()
    assert run.found == []
    script.say(roots=roots_of(ca))
    await run.settled()
    assert run.kinds == ["material"]


async def test_what_comes_while_something_is_examined_is_examined_next(script: Script, run: Run, ca: Pair):
    """An examination by another process takes its time, and both halves may change meanwhile."""
    run.held = asyncio.Event()
    first, second, new = leaf("web", ca), leaf("web", ca), issue("new")
    script.say(leaf=leaf_of(first), roots=roots_of(ca))
    await run.settled()
    script.say(leaf=leaf_of(second))
    await run.settled()
    script.say(roots=roots_of(ca, new))
    await run.settled()
    assert run.found == []
    run.held.set()
    await run.settled()
    assert run.kinds[0] == "material"
    last = run.found[-1]
    assert isinstance(last, Material)
    assert last.serial == f"{second.certificate.serial_number:x}"
    assert last.roots_pem == ca.pem.decode() + new.pem.decode()
    assert run.examined <= 4, "each half at most twice"


async def test_a_dropped_root_is_not_trusted_while_our_own_leaf_waits_for_its_renewal(
    script: Script, run: Run, ca: Pair
):
    script.say(leaf=leaf_of(leaf("web", ca)), roots=roots_of(ca))
    await run.settled()
    new = issue("new")
    script.say(roots=roots_of(new))
    await run.settled()
    made = run.found[-1]
    assert isinstance(made, Material)
    assert made.roots_pem == new.pem.decode()


async def test_what_consul_gives_and_cannot_be_used_is_told_once_and_looked_at_again(
    script: Script, run: Run, wall: WallClock, ca: Pair
):
    wall.forward(days=-1)
    script.say(leaf=leaf_of(leaf("web", ca)), roots=roots_of(ca))
    await run.settled()
    await run.later()
    assert run.kinds == ["refused"]
    refused = run.found[0]
    assert isinstance(refused, Trouble)
    assert refused.words.startswith(f"what Consul gave for web is refused: certificate of {id_of('web')}: is not valid")
    wall.forward(days=1)
    await run.later()
    assert run.kinds == ["refused", "material"]
    await run.later()
    assert run.kinds == ["refused", "material"]


async def test_one_loss_is_told_for_both_watches_and_each_refusal(script: Script, run: Run, ca: Pair):
    told = leaf_of(leaf("web", ca))
    script.say(leaf=told, roots=roots_of(ca))
    await run.settled()
    script.say(leaf=Unreachable("gone"), roots=Unreachable("gone too"))
    await run.settled()
    assert run.kinds == ["material", "away"]


async def test_a_certificate_of_another_trust_domain_than_the_roots(script: Script, run: Run, ca: Pair):
    script.say(leaf=leaf_of(leaf("web", ca)), roots=roots_of(ca, domain="other.consul"))
    await run.settled()
    assert run.kinds == ["refused"]


async def test_no_client_can_be_made(wall: WallClock, ca: Pair):
    script = Script()
    script.say(leaf=leaf_of(leaf("web", ca)), roots=roots_of(ca))
    outcomes: list[Exception | None] = [ValueError("no token"), ValueError("no token"), OSError("no file"), None]

    def make() -> Script:
        if (error := outcomes.pop(0)) is not None:
            raise error
        return script

    run = Run(script, wall)
    await run.stop()
    run._provider._consul = make  # type: ignore[assignment]
    run._task = asyncio.create_task(run._provider.run(run.found.append))
    for _ in range(4):
        await run.settled()
        await run.later()
    assert run.kinds == ["away", "away", "material"]
    assert [one.words for one in run.found if isinstance(one, Trouble)] == [
        "no client of Consul could be made: no token",
        "no client of Consul could be made: no file",
    ]
    await run.stop()

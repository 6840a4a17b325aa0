"""The wait before the first request is judged: once, bounded, in both colours; and whom it holds up."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import pytest

from meshsdk.discovery.gate import Gate
from meshsdk.server.asgi import MeshASGI
from meshsdk.server.beginning import Beginning, Source
from meshsdk.server.inbound import Intake
from meshsdk.server.lifecycle import Lifecycle
from meshsdk.server.wsgi import MeshWSGI


class Clock:
    """Virtual seconds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Door:
    """Never opens; each wait takes as long as it may."""

    def __init__(self, clock: Clock, takes: float = 1e9) -> None:
        self.clock = clock
        self.takes = takes
        self.waited: list[float] = []

    def wait(self, timeout: float) -> bool:
        self.waited.append(timeout)
        self.clock.now += min(self.takes, timeout)
        return self.takes <= timeout

    async def await_open(self, seconds: float) -> bool:
        return self.wait(seconds)


class Keys:
    """The keys of token issuers."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    def wait_known(self, seconds: float) -> None:
        self.waited.append(seconds)

    async def await_known(self, seconds: float) -> None:
        self.waited.append(seconds)


class Place:
    """A beginning with everything around it held by the test."""

    def __init__(self, *takes: float) -> None:
        self.clock = Clock()
        self.doors = [Door(self.clock, seconds) for seconds in takes]
        self.asked = 0
        self.known = False
        self.keys = Keys()
        sources = [Source(f"source {n}", lambda n=n: self._ask(n), lambda: self.known) for n in range(len(takes))]
        self.beginning = Beginning("shop", 2.0, sources, keys=self.keys, clock=self.clock)

    def _ask(self, number: int) -> Door:
        self.asked += 1
        return self.doors[number]

    async def wait(self, colour: str) -> None:
        if colour == "threads":
            self.beginning.wait()
        else:
            await self.beginning.await_over()


colours = pytest.mark.parametrize("colour", ["threads", "asyncio"])


@colours
async def test_everything_shares_one_time(colour: str) -> None:
    place = Place(0.5, 0.7)
    assert not place.beginning.over
    await place.wait(colour)
    assert place.beginning.over
    assert [door.waited for door in place.doors] == [[2.0], [1.5]]
    assert place.keys.waited == [pytest.approx(0.8)]


@colours
async def test_it_takes_no_longer_than_it_may_and_only_once(colour: str) -> None:
    place = Place(9.0, 9.0)
    await place.wait(colour)
    assert place.clock.now == 102.0
    await place.wait(colour)
    assert place.asked == 2
    assert [door.waited for door in place.doors] == [[2.0], [0.0]]


@colours
async def test_time_runs_from_the_first_question(colour: str) -> None:
    """An application's own start-up goes on meanwhile."""
    place = Place(9.0)
    place.beginning.begin()
    place.clock.now += 1.25
    await place.wait(colour)
    assert place.doors[0].waited == [0.75]


@colours
async def test_what_is_not_known_is_told_once(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    place = Place(9.0, 9.0)
    with caplog.at_level(logging.WARNING, "meshsdk.server"):
        await place.wait(colour)
        await place.wait(colour)
    (told,) = caplog.messages
    assert told.startswith("shop: Consul does not tell source 0 and source 1, and nothing of it is remembered")


@colours
async def test_what_is_known_is_not_told(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    place = Place(0.0)
    place.known = True
    await place.wait(colour)
    assert caplog.messages == []


def test_where_nothing_is_waited_for_it_is_over() -> None:
    assert Beginning("shop", 2.0).over


# --- whom it holds up ---------------------------------------------------------------------------------------------


class Gated:
    """A beginning with a real gate; the test opens it."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.gate = Gate()
        self.beginning = Beginning("shop", seconds, [Source("the policy", lambda: self.gate, lambda: True)])
        self.served: list[str] = []

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        self.served.append(scope["type"])
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    def wsgi(self, environ: Any, start_response: Any) -> list[bytes]:
        self.served.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [b""]


def scope(kind: str, path: str = "/") -> dict[str, Any]:
    return {"type": kind, "method": "GET", "path": path, "headers": []}


async def received() -> dict[str, str]:
    return {"type": "lifespan.startup"}


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_first_requests_wait_where_no_lifespan_is_run(intake: Intake, kind: str) -> None:
    gated = Gated()
    app = MeshASGI(gated.asgi, intake, None, None, gated.beginning)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    calls = [asyncio.create_task(app(scope(kind), received, send)) for _ in range(3)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert (gated.served, sent) == ([], [])
    gated.gate.open()
    await asyncio.gather(*calls)
    assert gated.served == [kind] * 3


async def test_a_first_request_that_is_given_up_leaves_the_wait_to_the_next(intake: Intake) -> None:
    gated = Gated()
    app = MeshASGI(gated.asgi, intake, None, None, gated.beginning)
    first = asyncio.create_task(app(scope("http"), received, _nowhere))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not gated.beginning.over
    gated.gate.open()
    await app(scope("http"), received, _nowhere)
    assert gated.served == ["http"]


async def test_the_mesh_s_own_pages_do_not_wait(make_intake: Any) -> None:
    from meshsdk.server.answers import Answer

    gated = Gated()
    intake = make_intake(pages={"/-/mesh/ready": lambda: Answer(503, b"starting\n")})
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await MeshASGI(gated.asgi, intake, None, None, gated.beginning)(scope("http", "/-/mesh/ready"), received, send)
    assert sent[0]["status"] == 503
    assert not gated.beginning.over


class Told:
    """Stands in for the lifecycle."""

    def starting(self) -> None: ...

    def started(self) -> None: ...


async def test_the_end_of_the_start_up_waits(intake: Intake) -> None:
    gated = Gated()
    lifecycle: Lifecycle = Told()  # type: ignore[assignment]
    app = MeshASGI(gated.asgi, intake, lifecycle, None, gated.beginning)
    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    life = asyncio.create_task(app({"type": "lifespan"}, received, send))
    for _ in range(10):
        await asyncio.sleep(0)
    assert gated.served == ["lifespan"], "the application's own start-up goes on"
    assert sent == []
    gated.gate.open()
    await life
    assert sent == ["lifespan.startup.complete"]


def test_under_trio_too(intake: Intake) -> None:
    gated = Gated(0.05)
    anyio.run(
        MeshASGI(gated.asgi, intake, None, None, gated.beginning), scope("http"), received, _nowhere, backend="trio"
    )
    assert gated.served == ["http"]
    assert gated.beginning.over


async def test_first_requests_wait_in_threads(intake: Intake) -> None:
    gated = Gated()
    app = MeshWSGI(gated.wsgi, intake, gated.beginning)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/x", "wsgi.url_scheme": "http"}
    call = asyncio.create_task(asyncio.to_thread(app, environ, lambda status, headers: None))
    await asyncio.sleep(0.05)
    assert gated.served == []
    gated.gate.open()
    (await call).close()  # type: ignore[attr-defined]
    assert gated.served == ["/x"]


async def _nowhere(message: Any) -> None:
    """What is sent interests nobody."""

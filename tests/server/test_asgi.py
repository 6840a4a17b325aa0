"""The ASGI adapter, driven by hand and through httpx: a request is ended once, whatever happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Any

import httpx
import pytest

from meshsdk.server.answers import Answer
from meshsdk.server.asgi import DeadlineBroken, MeshASGI
from meshsdk.server.inbound import Intake
from meshsdk.telemetry.context import current, remaining_deadline

DEADLINE = "x-envoy-expected-rq-timeout-ms"


def scope_of(
    path: str = "/", method: str = "GET", headers: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return {"type": "http", "method": method, "path": path, "headers": pairs, "scheme": "http", **more}


async def no_receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b""}


class Sent(list[Any]):
    async def __call__(self, message: Any) -> None:
        self.append(message)

    @property
    def status(self) -> int:
        return self[0]["status"]

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self[1:])


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"keep-alive")]})
    await send({"type": "http.response.body", "body": b"hello"})


def client_for(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_pairs_may_be_lists(intake: Intake, told: Any) -> None:
    """As Starlette's TestClient has them."""
    found: list[float | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(remaining_deadline())
        await hello(scope, receive, send)

    headers = [[DEADLINE.encode(), b"60000"], (b"host", b"test")]
    scope = {**scope_of(), "headers": headers, "server": ["test", 80], "client": ["10.0.0.1", 50000]}
    await MeshASGI(app, intake)(scope, no_receive, Sent())
    assert (told.only().status, told.only().client) == (200, "10.0.0.1")
    assert found[0] is not None


async def test_request_is_told_once(intake: Intake, told: Any) -> None:
    async with client_for(MeshASGI(hello, intake)) as http:
        reply = await http.post("/a/b?c=d")
    assert (reply.status_code, reply.text) == (200, "hello")
    event = told.only()
    assert (event.method, event.path, event.status, event.flag, event.error_type) == ("POST", "/a/b", 200, "", "")
    assert event.seconds > 0
    assert intake.in_flight == 0


async def test_handler_sees_deadline_and_background_work_does_not(intake: Intake) -> None:
    seen: list[float | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(remaining_deadline())
        assert intake.in_flight == 1
        await hello(scope, receive, send)
        assert intake.in_flight == 0
        seen.append(remaining_deadline())

    before = time.monotonic()
    await MeshASGI(app, intake)(scope_of(headers={DEADLINE: "60000"}), no_receive, Sent())
    assert seen[0] is not None
    assert before + 60 <= seen[0] <= time.monotonic() + 60
    assert seen[1] is None
    assert current.get() is None


async def test_work_after_the_last_byte_outlives_the_deadline(intake: Intake, told: Any) -> None:
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        await asyncio.sleep(0.05)
        done.set()

    await MeshASGI(app, intake)(scope_of(headers={DEADLINE: "20"}), no_receive, Sent())
    assert done.is_set()
    assert told.only().status == 200


async def test_handler_is_cancelled_at_the_deadline(intake: Intake, told: Any) -> None:
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    sent = Sent()
    await MeshASGI(app, intake)(scope_of(headers={DEADLINE: "20"}), no_receive, sent)
    assert cancelled.is_set()
    assert sent.status == 504
    assert b"20 ms (x-envoy-expected-rq-timeout-ms); the handler was cancelled" in sent.body
    event = told.only()
    assert (event.status, event.flag, event.refused) == (504, "UT", False)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_started_reply_is_broken_off_at_the_deadline(intake: Intake, told: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await asyncio.sleep(30)

    with pytest.raises(DeadlineBroken, match="20 ms"):
        await MeshASGI(app, intake)(scope_of(headers={"grpc-timeout": "20m"}), no_receive, Sent())
    assert (told.only().status, told.only().flag) == (200, "UT")


async def test_application_that_swallows_cancellation_still_ends(intake: Intake, told: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            raise RuntimeError("translated") from None

    sent = Sent()
    await MeshASGI(app, intake)(scope_of(headers={DEADLINE: "20"}), no_receive, sent)
    assert sent.status == 504
    assert told.only().flag == "UT"


async def test_timeout_of_the_application_is_its_own(intake: Intake, told: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await MeshASGI(app, intake)(scope_of(headers={DEADLINE: "60000"}), no_receive, Sent())
    assert (told.only().status, told.only().error_type, told.only().flag) == (500, "TimeoutError", "")


async def test_expired_request_never_reaches_the_application(intake: Intake, told: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("must not run")

    sent = Sent()
    await MeshASGI(app, intake)(scope_of(headers={DEADLINE: "0"}), no_receive, sent)
    assert sent.status == 504
    assert sent.body.startswith(b"deadline exceeded: the caller gave this request 0 ms")
    assert told.only().refused


@pytest.mark.parametrize("junk", ["soon", "-5", "1.5", "", "1e9", "99999999999"])
async def test_unreadable_deadline_costs_nothing(intake: Intake, told: Any, junk: str) -> None:
    sent = Sent()
    await MeshASGI(hello, intake)(scope_of(headers={DEADLINE: junk}), no_receive, sent)
    assert sent.status == 200
    assert intake.unreadable_timeouts == 1


async def test_failure_of_the_application(intake: Intake, told: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await MeshASGI(app, intake)(scope_of(), no_receive, Sent())
    assert (told.only().status, told.only().error_type) == (500, "ValueError")


async def test_reply_that_dies_half_way(intake: Intake, told: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await MeshASGI(app, intake)(scope_of(), no_receive, Sent())
    assert (told.only().status, told.only().error_type) == (200, "OSError")


async def test_cancellation_from_outside_is_nobodys_failure(intake: Intake, told: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(30)

    task = asyncio.ensure_future(MeshASGI(app, intake)(scope_of(headers={DEADLINE: "60000"}), no_receive, Sent()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (told.only().flag, told.only().error_type, told.only().status) == ("DC", "", None)
    assert intake.in_flight == 0


async def test_streaming_ends_with_its_last_chunk(intake: Intake, told: Any) -> None:
    in_flight: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            in_flight.append(intake.in_flight)
        await send({"type": "http.response.body", "body": b""})
        in_flight.append(intake.in_flight)
        await send({"type": "http.response.trailers", "headers": []})
        in_flight.append(intake.in_flight)

    await MeshASGI(app, intake)(scope_of(), no_receive, Sent())
    assert in_flight == [1, 1, 1, 1, 0]


async def test_application_without_a_reply_is_ended(intake: Intake, told: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    await MeshASGI(app, intake)(scope_of(), no_receive, Sent())
    assert told.only().status is None
    assert intake.in_flight == 0


async def test_connection_closes_with_the_reply_while_draining(make_intake: Any) -> None:
    sent = Sent()
    await MeshASGI(hello, make_intake(closing=lambda: True))(scope_of(), no_receive, sent)
    assert [value for name, value in sent[0]["headers"] if name == b"connection"] == [b"close"]


async def test_own_pages(make_intake: Any, told: Any) -> None:
    later: Future[Answer] = Future()
    later.set_result(Answer(200, b"counted"))
    intake = make_intake(pages={"/ready": lambda: Answer(503, b"starting\n"), "/metrics": lambda: later})
    async with client_for(MeshASGI(hello, intake)) as http:
        ready = await http.get("/ready")
        assert (ready.status_code, ready.text, ready.headers["cache-control"]) == (503, "starting\n", "no-store")
        assert (await http.get("/metrics")).text == "counted"
        head = await http.head("/ready")
        assert (head.status_code, head.content, head.headers["content-length"]) == (503, b"", "9")
        refused = await http.post("/ready")
        assert (refused.status_code, refused.text) == (405, "POST is not answered here: use GET or HEAD\n")
    assert told.events == []


async def test_websocket_is_counted(intake: Intake, told: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        assert intake.in_flight == 1
        assert remaining_deadline() is None
        await send({"type": "websocket.close"})

    scope = {"type": "websocket", "path": "/ws", "headers": [(DEADLINE.encode(), b"20")], "scheme": "ws"}
    await MeshASGI(app, intake)(scope, no_receive, Sent())
    assert (told.only().status, told.only().path) == (101, "/ws")


async def test_websocket_refused_and_failed(intake: Intake, told: Any) -> None:
    async def closing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close"})

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("x")

    scope: dict[str, Any] = {"type": "websocket", "path": "/ws", "headers": [], "scheme": "ws"}
    await MeshASGI(closing, intake)(scope, no_receive, Sent())
    with pytest.raises(KeyError):
        await MeshASGI(failing, intake)(scope, no_receive, Sent())
    assert [(event.status, event.error_type) for event in told.ended] == [(403, ""), (500, "KeyError")]


async def test_unknown_scopes_pass_through(intake: Intake, told: Any) -> None:
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["type"])

    await MeshASGI(app, intake)({"type": "lifespan"}, no_receive, Sent())
    await MeshASGI(app, intake)({"type": "novel"}, no_receive, Sent())
    assert asked == ["lifespan", "novel"]
    assert told.events == []


def test_without_asyncio_nothing_is_cancelled_and_nothing_breaks(intake: Intake, told: Any) -> None:
    """Under trio there is no asyncio loop: a coroutine stepped by hand has none either."""
    coroutine = MeshASGI(hello, intake)(scope_of(headers={DEADLINE: "1"}), no_receive, Sent())
    with pytest.raises(StopIteration):
        coroutine.send(None)  # type: ignore[attr-defined]
    assert told.only().status == 200


async def test_deadlines_of_parallel_requests_do_not_mix(intake: Intake) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        mine = remaining_deadline()
        await asyncio.sleep(0)
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        assert remaining_deadline() == mine
        await hello(scope, receive, send)

    async with client_for(MeshASGI(app, intake)) as http:
        replies = await asyncio.gather(*(http.get("/", headers={DEADLINE: str(10_000 + n)}) for n in range(20)))
    assert {reply.status_code for reply in replies} == {200}


async def test_streamed_body_through_httpx(intake: Intake, told: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    async with client_for(MeshASGI(app, intake)) as http:
        reply = await http.post("/", content=chunks())
    assert (reply.status_code, reply.text) == (201, "one two")
    assert told.only().status == 201

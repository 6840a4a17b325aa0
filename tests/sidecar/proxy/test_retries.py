"""What is tried again, with which bytes, and what the caller is told: the core's rules, over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from meshsdk.core.events import AttemptEnded
from tests.sidecar.proxy.ends import LONG, Peer, answering, ok, read_body, until
from tests.sidecar.proxy.rig import plan

GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
DEADLINE = b"x-envoy-expected-rq-timeout-ms"


def put(body: bytes, method: bytes = b"PUT", fields: bytes = b"") -> bytes:
    return b"%b / HTTP/1.1\r\nHost: app\r\n%bContent-Length: %d\r\n\r\n%b" % (method, fields, len(body), body)


def breaking(times: int, read: bool = True):
    """Reset the first `times` requests, once read or in their middle; answer those after."""
    left = [times]

    async def script(peer: Peer) -> None:
        while True:
            if left[0] and not read:
                left[0] -= 1
                await peer.reader.read(1)
                return peer.reset()
            await peer.request()
            if left[0]:
                left[0] -= 1
                return peer.reset()
            await peer.send(ok())

    return script


def tries(rig) -> list[tuple[str, str]]:
    return [(event.outcome, event.decision) for event in rig.events if isinstance(event, AttemptEnded)]


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_bad_answer_then_good(rig, status: int) -> None:
    rig.app.script = answering(ok(b"no", status), ok(b"yes"))
    client = await rig.client()
    assert (await client.ask(GET)).body == b"yes"
    assert tries(rig) == [("5xx", f"retry:status-{status}")]
    assert [request.get(b"x-envoy-attempt-count") for request in rig.app.requests] == [None, b"2"]
    assert rig.app.connections == 1  # the bad answer was whole


async def test_bad_answer_that_goes_on_and_on_is_cut_short(rig) -> None:
    rig.app.script = answering(b"HTTP/1.1 503 No\r\nContent-Length: 1000000\r\n\r\nnot all of it", ok(b"yes"))
    client = await rig.client()
    assert (await client.ask(GET)).body == b"yes"
    assert rig.app.connections == 2


async def test_last_answer_is_the_callers(rig) -> None:
    rig.app.script = answering(ok(b"no", 503))
    client = await rig.client()
    reply = await client.ask(GET)
    assert (reply.status, reply.body) == (503, b"no")
    assert (rig.ended[0].attempts, rig.ended[0].flag) == (3, "URX")


async def test_reset_then_good(rig) -> None:
    rig.app.script = breaking(2)
    client = await rig.client()
    assert (await client.ask(GET)).body == b"ok"
    assert tries(rig) == [("reset", "retry:reset")] * 2


async def test_resets_in_the_end_are_told(rig) -> None:
    rig.app.script = breaking(9)
    client = await rig.client()
    reply = await client.ask(GET)
    assert (reply.status, reply.get(b"x-mesh-flag"), reply.get(b"connection")) == (503, b"UC", None)
    assert b"3 attempts" in reply.body or b"attempts=3" in reply.body or b"3 tries" in reply.body, reply.body
    assert (await client.ask(b"PUT / HTTP/1.1\r\nHost: app\r\n\r\n")).status == 503  # the connection goes on


async def test_what_was_written_and_is_not_idempotent_is_not_repeated(rig) -> None:
    rig.app.script = breaking(1)
    client = await rig.client()
    reply = await client.ask(put(b"body", b"POST"))
    assert (reply.status, reply.get(b"x-mesh-flag")) == (503, b"UC")
    assert len(rig.app.requests) == 1
    assert rig.ended[0].reason == "not-idempotent"


async def test_an_idempotency_key_makes_it_repeatable(rig) -> None:
    rig.app.script = breaking(1)
    client = await rig.client()
    assert (await client.ask(put(b"body", b"POST", b"Idempotency-Key: 1\r\n"))).status == 200
    assert [request.body for request in rig.app.requests] == [b"body"] * 2


async def test_what_was_not_written_is_tried_elsewhere_whatever_it_is(rig) -> None:
    with contextlib.ExitStack() as stack:
        closed = stack.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))
        rig.directory.place("app", [f"127.0.0.1:{closed.getsockname()[1]}", rig.app.address])
        client = await rig.client()
        for _ in range(6):
            assert (await client.ask(put(b"body", b"POST"))).status == 200
    assert ("connect-failure", "retry:connect-failure") in tries(rig)
    assert [request.body for request in rig.app.requests] == [b"body"] * 6


async def test_a_connection_that_was_closed_meanwhile_is_no_try_of_the_request(rig, way) -> None:
    client = await rig.client(way)
    assert (await client.ask(put(b"1", b"POST"))).status == 200
    for peer in tuple(rig.app.peers):
        await peer.close()
    assert (await client.ask(put(b"2", b"POST"))).status == 200
    assert [request.body for request in rig.app.requests] == [b"1", b"2"]


@pytest.mark.parametrize("size", [0, 1, 1000, 64 * 1024])
@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_are_kept_for_another_try(rig, size: int, chunked: bool) -> None:
    rig.app.script = breaking(2)
    client, body = await rig.client(), bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    if chunked:
        data = b"%x\r\n%b\r\n" % (size, body) if size else b""
        client.write(
            b"PUT / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n", data, b"0\r\nX-Sum: 1\r\n\r\n"
        )
    else:
        client.write(put(body))
    assert (await client.reply()).status == 200
    assert [request.body for request in rig.app.requests] == [body] * 3
    assert all(request.trailers == [(b"X-Sum", b"1")] * chunked for request in rig.app.requests)


async def test_a_larger_body_goes_on_and_is_not_repeated(rig) -> None:
    body = b"x" * (64 * 1024 + 1)
    client = await rig.client()
    assert (await client.ask(put(body))).status == 200
    assert rig.app.requests[0].body == body
    rig.app.script = breaking(1)
    for peer in tuple(rig.app.peers):
        await peer.close()
    reply = await client.ask(put(body))
    assert (reply.status, rig.ended[1].reason) == (503, "body-not-replayable")


async def test_a_large_body_of_which_nothing_was_taken_is_sent_elsewhere(rig) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        rig.directory.place("app", [f"127.0.0.1:{closed.getsockname()[1]}", rig.app.address])
        client, body = await rig.client(), b"x" * 500_000
        for _ in range(4):
            assert (await client.ask(put(body, b"POST"))).status == 200
    assert [len(request.body) for request in rig.app.requests] == [len(body)] * 4


@pytest.mark.parametrize("first", ["reset", "503"])
async def test_retry_while_the_body_is_still_coming(rig, first: str) -> None:
    again = asyncio.Event()

    async def script(peer: Peer) -> None:
        head = await peer.head()
        if not again.is_set():
            assert await peer.reader.readexactly(5) == b"first"
            again.set()
            if first == "503":
                await peer.send(ok(b"no", 503))
                await peer.reader.read()
            peer.reset()
            return
        request = await read_body(peer.reader, head, reply=False)
        await peer.send(ok(request.body))

    rig.app.script = script
    client = await rig.client()
    await client.send(b"PUT / HTTP/1.1\r\nHost: app\r\nContent-Length: 15\r\n\r\nfirst")
    await again.wait()
    await until(lambda: rig.app.connections == 2)
    assert (await client.ask(b"secondthird"[:10])).body == b"firstsecondthird"[:15]


async def test_body_goes_on_coming_while_there_is_a_pause(make) -> None:
    rig = await make(policy=plan(retries={"backoff_base": 0.05, "backoff_max": 0.05}))
    rig.app.script = breaking(1, read=False)
    client, body = await rig.client(), b"y" * 60_000
    await client.send(b"PUT / HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n" % len(body), body[:10])
    await until(lambda: bool(tries(rig)))
    await client.send(body[10:])
    assert (await client.reply()).status == 200
    assert rig.app.requests[0].body == body


async def test_retry_after_is_heeded(make) -> None:
    rig = await make(policy=plan(timeouts={"request": 2.0}))
    rig.app.script = answering(ok(b"no", 503, b"Retry-After: 1\r\n"), ok(b"yes"))
    client = await rig.client()
    begin = asyncio.get_running_loop().time()
    assert (await client.ask(GET)).body == b"yes"
    assert asyncio.get_running_loop().time() - begin >= 0.99


async def test_retry_after_beyond_the_deadline_is_the_answer(rig) -> None:
    rig.app.script = answering(ok(b"no", 503, b"Retry-After: 100\r\n"))
    client = await rig.client()
    assert (await client.ask(GET)).get(b"retry-after") == b"100"
    assert rig.ended[0].reason == "retry-after-past-deadline"


async def test_budget_bounds_retries(make) -> None:
    rig = await make(policy=plan(retries={"budget_ratio": 0.0, "budget_min_per_second": 0.2, "budget_window": 10.0}))
    rig.app.script = answering(ok(b"no", 503))
    client = await rig.client()
    for _ in range(6):
        assert (await client.ask(GET)).status == 503
    assert sum(end.attempts - 1 for end in rig.ended) == 2
    assert rig.ended[-1].reason == "budget-empty"


async def test_retries_can_be_off(make) -> None:
    rig = await make(policy=plan(retries={"attempts": 1}))
    rig.app.script = answering(ok(b"no", 503))
    client = await rig.client()
    assert (await client.ask(GET)).status == 503
    assert len(rig.app.requests) == 1


async def test_way_in_asks_the_app_once(rig) -> None:
    rig.app.script = answering(ok(b"no", 503))
    client = await rig.client("in")
    assert (await client.ask(GET)).body == b"no"
    rig.app.script = breaking(1)
    for peer in tuple(rig.app.peers):
        await peer.close()
    assert (await client.ask(GET)).get(b"x-mesh-flag") == b"UC"
    assert len(rig.app.requests) == 2
    assert [(end.status, end.flag) for end in rig.requests_ended] == [(503, ""), (503, "UC")]


# --- deadlines --------------------------------------------------------------------------------------------


async def _silent(peer: Peer) -> None:
    await peer.request()
    await peer.reader.read()


@pytest.mark.parametrize("field", [DEADLINE + b": 80", b"Grpc-Timeout: 80m"])
async def test_callers_deadline_bounds_the_call_and_is_sent_on(rig, way, field: bytes) -> None:
    rig.app.script = _silent
    client = await rig.client(way)
    begin = asyncio.get_running_loop().time()
    reply = await client.ask(b"GET / HTTP/1.1\r\nHost: app\r\n%b\r\n\r\n" % field)
    assert (reply.status, reply.get(b"x-mesh-flag")) == (504, b"UT")
    assert 0.07 <= asyncio.get_running_loop().time() - begin < 1.0
    asked = rig.app.requests[0]
    assert asked.get(b"grpc-timeout") is None
    assert 1 <= int(asked.get(DEADLINE) or 0) <= 80
    await until(lambda: not rig.app.peers)  # its connection is closed: an answer would be nobody's
    assert (await client.ask(GET.replace(b"Host", DEADLINE + b": 20\r\nHost"))).status == 504


async def test_app_that_never_answers_has_the_tries_of_the_policy(make) -> None:
    rig = await make(policy=plan(timeouts={"attempt": 0.05, "request": 5.0}))
    rig.app.script = _silent
    client = await rig.client()
    reply = await client.ask(GET)
    assert (reply.status, reply.get(b"x-mesh-flag")) == (504, b"UT")
    assert rig.ended[0].attempts == 3
    assert [request.get(DEADLINE) for request in rig.app.requests] == [b"50"] * 3


async def test_deadline_in_the_middle_of_a_body_is_a_cut(make, way) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nhalf" % LONG)
        await peer.reader.read()

    rig = await make(script, policy=plan(timeouts={"request": 5.0}))
    client = await rig.client(way)
    await client.send(b"GET / HTTP/1.1\r\nHost: app\r\n%b: 100\r\n\r\n" % DEADLINE)
    assert (await client.reader.readuntil(b"\r\n\r\nhalf")).startswith(b"HTTP/1.1 200")
    assert await client.closed()
    await rig.settled()


async def test_no_time_at_all_is_refused_at_the_door(rig) -> None:
    client = await rig.client("in")
    assert (await client.ask(b"GET / HTTP/1.1\r\nHost: app\r\n%b: 0\r\n\r\n" % DEADLINE)).status == 504
    assert not rig.app.requests


async def test_unknown_service_is_told_in_words(rig) -> None:
    client = await rig.client()
    reply = await client.ask(b"POST / HTTP/1.1\r\nHost: nobody\r\nContent-Length: 2\r\n\r\nok")
    assert (reply.status, reply.get(b"x-mesh-flag")) == (503, b"NR")
    assert b"nobody" in reply.body
    assert (await client.ask(GET)).status == 200

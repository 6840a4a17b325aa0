"""Deadlines are absolute, and each bound on one wait counts that wait alone; sync and async."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from meshsdk.core.model import Phase
from tests.wire.callers import Pieces, at, called, failing, failing_read, get, within
from tests.wire.scripted import LONG, Peer, Server, after_request, answering, deaf_port, reply

LARGE = b"x" * (20 * 1024 * 1024)


async def test_a_dripped_head_ends_at_the_deadline(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(after_request(lambda peer: peer.drip(reply(b"x" * 99), 0.03)))
    began = time.monotonic()
    failure = await failing(ours, at(server), within(0.3, read=0.2))
    assert 0.29 < time.monotonic() - began < 0.5
    assert (failure.phase, failure.kind) == (Phase.REPLY_STARTED, "timeout")
    assert "head was not complete" in failure.detail


async def test_a_dripped_body_ends_at_its_deadline(ours: Any, serve: Callable[..., Server]) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LONG)
        peer.drip(b"x" * LONG, 0.03)

    server = serve(script)
    began = time.monotonic()
    answer = await ours.send(at(server), get(), within(0.3, idle=0.2))
    failure = await failing_read(ours, answer)
    assert 0.29 < time.monotonic() - began < 0.5
    assert (failure.phase, failure.kind) == (Phase.REPLY_STARTED, "timeout")
    assert "body was not complete in time" in failure.detail


@pytest.mark.parametrize(("bound", "detail"), [("idle", "went silent"), ("read", "went silent")])
async def test_silence_in_the_body(ours: Any, serve: Callable[..., Server], bound: str, detail: str) -> None:
    server = serve(after_request(lambda peer: (peer.send(reply(b"x" * LONG)[:-1]), peer.stall())))
    answer = await ours.send(at(server), get(), within(5, **{bound: 0.15}))
    began = time.monotonic()
    failure = await failing_read(ours, answer)
    assert 0.1 < time.monotonic() - began < 0.4
    assert detail in failure.detail


async def test_silence_before_the_head(ours: Any, serve: Callable[..., Server]) -> None:
    began = time.monotonic()
    failure = await failing(ours, at(serve(after_request(Peer.stall))), within(5, read=0.15))
    assert 0.14 < time.monotonic() - began < 0.4
    assert (failure.phase, failure.kind) == (Phase.WRITTEN, "timeout")


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_peer_that_never_reads(ours: Any, serve: Callable[..., Server], streamed: bool) -> None:
    body = Pieces(*[LARGE[:100_000]] * 200) if streamed else LARGE
    began = time.monotonic()
    failure = await failing(ours, at(serve(Peer.until_left)), within(5, write=0.2), get(body, "POST"))
    assert 0.19 < time.monotonic() - began < 1.0
    assert (failure.phase, failure.kind) == (Phase.WRITTEN, "timeout")


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_peer_that_reads_slowly_is_written_to(ours: Any, serve: Callable[..., Server], streamed: bool) -> None:
    """Each write has its bound, not all of them; nor does the wait for the reply begin before them."""

    def script(peer: Peer) -> None:
        left = len(LARGE)
        while left > 0 and (data := peer.sock.recv(1024 * 1024)):
            left -= len(data)
            peer.stopped.wait(0.01)
        peer.send(reply())
        peer.stall()

    body = Pieces(*[LARGE[:100_000]] * 220) if streamed else LARGE
    assert await called(ours, at(serve(script)), within(20, write=0.25, read=0.25), get(body, "POST")) == b"ok"


async def test_the_wait_for_the_reply_begins_after_the_upload(ours: Any, serve: Callable[..., Server]) -> None:
    class Slow(Pieces):
        def __iter__(self) -> Any:
            for _ in range(3):
                time.sleep(0.1)
                yield b"x"

        async def __aiter__(self) -> Any:
            for _ in range(3):
                await asyncio.sleep(0.1)
                yield b"x"

    began = time.monotonic()
    failure = await failing(ours, at(serve(after_request(Peer.stall))), within(5, read=0.2), get(Slow(), "POST"))
    assert 0.45 < time.monotonic() - began < 0.8
    assert failure.kind == "timeout"
    assert await called(ours, at(serve(answering())), within(5, read=0.2), get(Slow(), "POST")) == b"ok"


async def test_waiting_for_a_connection(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(after_request(Peer.stall))
    busy = asyncio.create_task(failing(ours, at(server), within(0.8, max_connections=1)))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    failure = await failing(ours, at(server), within(5, pool=0.15, max_connections=1))
    assert 0.14 < time.monotonic() - began < 0.4
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "timeout")
    assert "all 1 allowed" in failure.detail
    await busy


async def test_connecting(ours: Any) -> None:
    with deaf_port() as port:
        began = time.monotonic()
        failure = await failing(ours, at(port), within(5, connect=0.15))
    assert 0.14 < time.monotonic() - began < 0.4
    assert (failure.phase, failure.kind) == (Phase.NOT_CONNECTED, "connect-failure")


async def test_a_slow_reader_is_no_silent_server(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering(reply(LARGE)))
    answer = await ours.send(at(server), get(), within(20, idle=0.2))
    size = 0
    for _ in range(3):
        size += len(await ours.piece(answer))
        await asyncio.sleep(0.3)
    size += len(await ours.read(answer))
    assert size == len(LARGE)
    await ours.let_go(answer)


async def test_the_bodys_deadline_holds_for_a_slow_reader_too(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(answering(reply(LARGE)))
    answer = await ours.send(at(server), get(), within(0.2))
    await ours.piece(answer)
    await asyncio.sleep(0.3)
    failure = await failing_read(ours, answer)
    assert "body was not complete in time" in failure.detail


async def test_many_deadlines_at_once(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(after_request(Peer.stall))
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))

    async def one(seconds: float) -> None:
        began = time.monotonic()
        await failing(ours, at(server), within(seconds))
        assert seconds - 0.002 < time.monotonic() - began < seconds + 0.3

    await asyncio.gather(*(one(0.2 + 0.1 * (index % 5)) for index in range(20)))


async def test_no_bound_at_all(ours: Any, serve: Callable[..., Server]) -> None:
    server = serve(after_request(lambda peer: (peer.stopped.wait(0.1), peer.send(reply()))))
    assert await called(ours, at(server), within(math.inf)) == b"ok"

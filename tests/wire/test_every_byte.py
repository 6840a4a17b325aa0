"""A server that closes, resets or stalls at every byte: what is told is exact, and no connection is left."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest

from meshsdk.core.model import Phase, TransportFailure
from meshsdk.wire.engine import Request
from tests.wire.callers import Pieces, at, called, get, within
from tests.wire.scripted import Peer, Script, Server, eventually

pytestmark = pytest.mark.no_cover  # the same lines at every byte; the tests beside this cover them once

REPLIES = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-One: 1\r\n\r\nhello world",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n",
    "until closed": b"HTTP/1.1 200 OK\r\nX-One: 1\r\n\r\nhello world",
    "after 1xx": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
}
BODIES = {"length": b"hello world", "chunks": b"hello world", "until closed": b"hello world", "after 1xx": b"hi"}
ENDS: dict[str, Script] = {"closes": lambda peer: None, "resets": Peer.reset, "stalls": Peer.stall}

# All stall at the same time; long enough that what was sent before it has arrived, on a busy machine too.
PATIENCE = 1.0
LONGER = 1.5  # where each of 140 sends up to 400 kB first


@pytest.fixture(autouse=True)
async def _many_threads() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(320))


def told(peer: Peer) -> None:
    """Send as much of the reply as the request's path says, and end as it says."""
    found = peer.request()
    assert found is not None
    framing, size, end = found[0].split(b" ")[1].decode().replace("%20", " ").split("/")[1:]
    peer.send(REPLIES[framing][: int(size)])
    if end == "resets":
        peer.arrived()
    ENDS[end](peer)


def complete(framing: str, size: int, end: str) -> bytes | None:
    """The body of a reply of which `size` bytes came; None where it is not complete."""
    whole = REPLIES[framing]
    if framing == "until closed":
        head = whole.index(b"\r\n\r\n") + 4
        return whole[head:size] if size >= head and end == "closes" else None
    return BODIES[framing] if size == len(whole) else None


def failure(framing: str, size: int, end: str) -> tuple[Phase, str, str]:
    """The phase, kind and detail of a failure after `size` bytes of the reply."""
    whole = REPLIES[framing]
    late = end == "stalls"
    kind = "timeout" if late else "reset"
    if not size:
        return Phase.WRITTEN, kind, "no reply in time" if late else "before any reply"
    if size < whole.index(b"\r\n\r\n", whole.index(b" 200 ")) + 4:
        return Phase.REPLY_STARTED, kind, "head was not complete" if late else "in the middle of the head"
    return Phase.REPLY_STARTED, kind, "body was not complete" if late else "in the middle of the body"


@pytest.mark.parametrize("end", ENDS)
async def test_of_the_reply(ours: Any, serve: Callable[..., Server], end: str) -> None:
    server = serve(told)

    gate = asyncio.Semaphore(140)

    async def gated(framing: str, size: int) -> None:
        async with gate:
            await one(framing, size)

    async def one(framing: str, size: int) -> None:
        target = f"/{framing}/{size}/{end}".replace(" ", "%20").encode()
        request = Request("POST", target, [(b"Host", b"payments")], b"charge", {})
        where = f"{framing}, {size} bytes: {REPLIES[framing][:size][-20:]!r}"
        whole = complete(framing, size, end)
        try:
            body = await called(ours, at(server), within(PATIENCE if end == "stalls" else 10), request)
        except TransportFailure as error:
            phase, kind, detail = failure(framing, size, end)
            found = error.failure
            assert whole is None, where
            assert (found.phase, found.kind) == (phase, kind), f"{where}: {found}"
            assert detail in found.detail, f"{where}: {found}"
        else:
            assert body == whole, where

    everywhere = [(framing, size) for framing, whole in REPLIES.items() for size in range(len(whole) + 1)]
    places = [place for place in everywhere if place[0] == "until closed" or place[1] < len(REPLIES[place[0]])]
    await asyncio.gather(*(gated(*place) for place in places))
    assert server.connections == len(places), "one that was broken was used again"
    await nothing_left(ours, server)
    for place in sorted(set(everywhere) - set(places)):  # whose connections would be used again
        await one(*place)
        await nothing_left(ours, server)


REQUESTS = {
    "known": get(b"0123456789" * 4, "POST"),
    "pieces": get(Pieces(b"0123456789", b"abcdef"), "POST", (b"Transfer-Encoding", b"chunked")),
    "large": get(b"x" * 400_000, "POST"),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", REQUESTS)
async def test_of_the_request(ours: Any, serve: Callable[..., Server], kind: str, end: str) -> None:
    """What was read of a request before the end never makes it one that nobody read."""
    turn = count()

    def reading(peer: Peer) -> None:
        left = (next(turn) % 140) * (1 if kind != "large" else 2500)
        until = time.monotonic() + LONGER + 0.2
        peer.sock.recv(1, socket.MSG_PEEK)  # something has come, whether it is read or not
        peer.sock.settimeout(None if end == "stalls" else 0.05)  # there may not be as much
        try:
            while left and (data := peer.sock.recv(left)):
                left -= len(data)
        except TimeoutError:
            pass
        peer.sock.settimeout(None)
        if end != "stalls":
            ENDS[end](peer)
        else:
            peer.stopped.wait(until - time.monotonic())
            peer.stall()  # a window that is shut hides the client's end

    server = serve(reading)

    async def one() -> None:
        with pytest.raises(TransportFailure) as caught:
            await called(ours, at(server), within(LONGER if end == "stalls" else 10), REQUESTS[kind])
        found = caught.value.failure
        assert (found.phase, found.kind) == (Phase.WRITTEN, "timeout" if end == "stalls" else "reset"), found
        assert re.search("no reply in time|before any reply", found.detail)

    await asyncio.gather(*(one() for _ in range(140)))
    await nothing_left(ours, server)


async def nothing_left(ours: Any, server: Server) -> None:
    opened, idle = ours.kept
    assert opened == idle, "a broken connection is kept"
    await ours.close()
    assert ours.kept == (0, 0)
    await asyncio.to_thread(eventually, lambda: server.open_connections == 0)

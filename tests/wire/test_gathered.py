"""Gathered writes.

Invariant: whatever is written to some transports, and whatever else is asked of them, in any order, the transports
below are asked for the same, each in the same order, by the end of the turn; of writes only how many there are differs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.wire.aio.gathered import Gathered, Outbox, gather, gathered

MOST = 512 * 1024


class Turns:
    """Of a loop what an outbox asks for."""

    def __init__(self) -> None:
        self.soon: deque[Callable[[], None]] = deque()

    def call_soon(self, callback: Callable[[], None], **_: Any) -> None:
        self.soon.append(callback)

    def end(self) -> None:
        while self.soon:
            self.soon.popleft()()


class Below(asyncio.Transport):
    """Remembers what it was asked for: bytes together, everything else by name."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bytes | str] = []
        self.writes = 0
        self.closing = False

    def write(self, data: Any) -> None:
        assert not self.closing
        self.writes += 1
        if self.asked and isinstance(self.asked[-1], bytes):
            self.asked[-1] += bytes(data)
        else:
            self.asked.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self.asked.append("eof")

    def close(self) -> None:
        self.closing = True
        self.asked.append("close")

    def abort(self) -> None:
        self.closing = True
        self.asked.append("abort")

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        self.asked.append("size")
        return 7

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.asked.append(f"limits {high} {low}")

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.asked.append("protocol")


def made(count: int = 1) -> tuple[Turns, list[Below], list[Gathered]]:
    turns = Turns()
    outbox = Outbox(turns)  # type: ignore[arg-type]
    below = [Below() for _ in range(count)]
    return turns, below, [Gathered(each, outbox) for each in below]


def do(transport: asyncio.Transport, what: str, size: int) -> None:
    match what:
        case "write":
            transport.write(b"x" * size)
        case "writelines":
            transport.writelines([b"a" * size, b"", b"b" * size])
        case "eof":
            transport.write_eof()
        case "size":
            transport.get_write_buffer_size()
        case "limits":
            transport.set_write_buffer_limits(size, 1)
        case "protocol":
            transport.set_protocol(asyncio.Protocol())
        case _:
            getattr(transport, what)()


ACTIONS = ["write", "writelines", "eof", "size", "limits", "protocol", "close", "abort"]
SIZES = st.sampled_from([0, 1, 100, 20_000, MOST - 1, MOST])


@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 2), st.sampled_from(ACTIONS), SIZES)), max_size=30))
def test_the_transports_below_are_asked_for_the_same(steps: list[tuple[int, str, int] | None]) -> None:
    turns, below, ours = made(3)
    plain = [Below() for _ in range(3)]
    for step in steps:
        if step is None:
            turns.end()
            continue
        number, what, size = step
        if not plain[number].closing:
            do(ours[number], what, size)
            do(plain[number], what, size)
    turns.end()
    for theirs, direct in zip(below, plain, strict=True):
        assert theirs.asked == [each for each in direct.asked if each]
        assert theirs.writes <= direct.writes


def test_what_is_written_in_one_turn_goes_out_in_one_write() -> None:
    turns, (below,), (ours,) = made()
    ours.write(b"head ")
    ours.writelines([b"body ", b"end"])
    assert below.asked == []
    turns.end()
    assert below.asked == [b"head body end"]
    assert below.writes == 1


def test_much_does_not_wait() -> None:
    _, (first, second), (one, two) = made(2)
    one.write(b"x" * (MOST - 1))
    assert first.writes == 0
    two.write(b"y")
    assert (first.writes, second.writes) == (1, 1)


def test_after_much_the_next_waits_again() -> None:
    turns, (below,), (ours,) = made()
    ours.write(b"x" * MOST)
    ours.write(b"y")
    assert below.writes == 1
    turns.end()
    assert below.writes == 2


def test_what_is_held_of_a_transport_that_closed_by_itself_is_dropped() -> None:
    turns, (below, other), (ours, still) = made(2)
    ours.write(b"late")
    still.write(b"fine")
    below.closing = True
    turns.end()
    assert (below.asked, other.asked) == ([], [b"fine"])


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_peer_hears_of_two_writes_at_once(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    class Peer(asyncio.Protocol):
        def __init__(self) -> None:
            self.came: list[bytes] = []
            self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def data_received(self, data: bytes) -> None:
            self.came.append(data)

        def connection_lost(self, exc: Exception | None) -> None:
            self.ended.set_result(None)

    async def main() -> list[bytes]:
        loop = asyncio.get_running_loop()
        peer = Peer()
        server = await loop.create_server(lambda: peer, "127.0.0.1", 0)
        raw, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname()[:2])
        ours = gathered(raw)
        assert isinstance(ours, Gathered)
        ours.write(b"one ")
        ours.write(b"two")
        ours.close()
        await peer.ended
        server.close()
        return peer.came

    with asyncio.Runner(loop_factory=lambda: gather(make())) as runner:
        assert runner.run(main()) == [b"one two"]


async def test_a_loop_that_gathers_nothing_gives_the_transport_itself() -> None:
    below = Below()
    assert gathered(below) is below

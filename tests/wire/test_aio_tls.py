"""TLS over a transport, two ends without sockets: in pieces of any size, cut off, and in the order that callers need.

Invariant of the fuzz: however the records are cut up, whenever either side stops reading, and whatever happens to other
connections of the loop, what is written comes out once and in order, then its end, and each direction ends for itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsdk.identity.contexts import client_context, server_context
from meshsdk.wire.aio.tls import Secured
from tests.identity.certificates import issue, material

CA = issue("ca")
CLIENT = client_context(material("web", CA))
SERVER = server_context(material("db", CA))


class Wire(asyncio.Transport):
    """Below one end: what is written waits until it is delivered, in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = bytearray()
        self.paused = self.closed = False
        self.writes = 0

    def write(self, data: Any) -> None:
        self.writes += 1
        self.waits += data

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Ear(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard = bytearray()
        self.ends = 0
        self.lost: list[Exception | None] = []
        self.made: object = None

    def connection_made(self, transport: object) -> None:
        self.made = transport

    def data_received(self, data: bytes) -> None:
        assert not self.ends
        self.heard += data

    def eof_received(self) -> bool:
        self.ends += 1
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class Line:
    """A client and a server, shaken."""

    def __init__(self, chunk: Callable[[], int] = lambda: 1 << 30, *, carried: bool = True) -> None:
        self.chunk = chunk
        self.told: list[Exception | None] = []
        self.ends = Secured(CLIENT, ready=self.told.append), Secured(SERVER, ready=self.told.append, server_side=True)
        self.ears = Ear(), Ear()
        self.wires = Wire(), Wire()
        for end, ear, wire in zip(self.ends, self.ears, self.wires, strict=True):
            if carried:
                end.set_protocol(ear)
            end.connection_made(wire)
        self.deliver()

    def deliver(self) -> None:
        while any(self.step(side) for side in (0, 1)):
            pass

    def step(self, side: int) -> bool:
        """Deliver one piece to one side."""
        wire, waits = self.wires[side], self.wires[1 - side].waits
        if wire.paused or wire.closed or not waits:
            return False
        piece = bytes(waits[: self.chunk()])
        del waits[: len(piece)]
        self.ends[side].data_received(piece)
        return True


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "write", "end", "pause", "resume", "deliver"]), st.integers(0, 1)), max_size=20
)


class Story:
    """What two ends do on a line, one step after the other."""

    def __init__(self, sizes: list[int]) -> None:
        turn = iter(sizes * 1000)
        self.line = Line(lambda: next(turn, 1 << 30))
        self.sizes = sizes
        self.wrote = bytearray(), bytearray()
        self.ended: set[int] = set()

    def write(self, side: int) -> None:
        if side not in self.ended:
            wrote = self.wrote[side]
            data = bytes([len(wrote) % 256]) * self.sizes[len(wrote) % len(self.sizes)]
            wrote += data
            self.line.ends[side].write(data)

    def end(self, side: int) -> None:
        self.ended.add(side)
        self.line.ends[side].write_eof()

    def pause(self, side: int) -> None:
        self.line.ends[side].pause_reading()

    def resume(self, side: int) -> None:
        self.line.ends[side].resume_reading()

    def deliver(self, side: int) -> None:
        self.line.step(side)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, sizes=st.lists(st.sampled_from([1, 20, 300]) | st.integers(1, 150_000), min_size=1, max_size=8))
def test_any_pieces_and_any_pauses(steps: list[tuple[str, int]], sizes: list[int]) -> None:
    async def scene() -> None:
        story = Story(sizes)
        line = story.line
        assert line.told == [None, None]
        for what, side in steps:
            getattr(story, what)(side)
        for _ in range(3):
            story.resume(0)
            story.resume(1)
            await asyncio.sleep(0)
            line.deliver()
        for side in (0, 1):
            assert line.ears[1 - side].heard == story.wrote[side]
            assert line.ears[1 - side].ends == (side in story.ended)
            assert not line.ends[side].is_closing()

    asyncio.run(scene())


def garble(line: Line, side: int) -> None:
    """Turn a bit of what comes next, or have nonsense come."""
    waits = line.wires[1 - side].waits
    if waits:
        waits[len(waits) // 2] ^= 1
    else:
        waits += b"\x17\x03\x03\x00\x20nonsense"


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 2), STEPS.filter(bool)), max_size=12),
    harmed=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 1)), max_size=3),
    sizes=st.lists(st.sampled_from([1, 20, 300]) | st.integers(1, 70_000), min_size=1, max_size=5),
)
def test_connections_of_a_loop_know_nothing_of_each_other(
    steps: list[tuple[int, list[tuple[str, int]]]], harmed: list[tuple[int, int]], sizes: list[int]
) -> None:
    async def scene() -> None:
        stories = [Story(sizes) for _ in range(3)]
        others = [Line() for _ in harmed]
        for at, (which, done) in enumerate(steps):
            for what, side in done:
                getattr(stories[which], what)(side)
            for (when, side), other in zip(harmed, others, strict=True):
                if when == at:
                    other.ends[1 - side].write(b"to be garbled" * 2000)
                    garble(other, side)
                    other.step(side)
        for story in stories:
            for _ in range(3):
                story.resume(0)
                story.resume(1)
                await asyncio.sleep(0)
                story.line.deliver()
            for side in (0, 1):
                assert story.line.ears[1 - side].heard == story.wrote[side]
                assert not story.line.ends[side].is_closing()

    asyncio.run(scene())


async def test_what_openssl_left_of_one_is_nobody_elses() -> None:
    """As where a signal's exception comes between what it is given and what it is asked for."""
    line, other = Line(), Line(carried=False)
    incoming, outgoing = line.ends[0]._incoming, line.ends[0]._outgoing
    assert other.ends[1]._incoming is incoming
    for ear, end, peer in ((line.ears[1], *line.ends), (line.ears[0], *reversed(line.ends))):
        incoming.write(b"\x17\x03\x03\x40\x00 a part of a record")
        outgoing.write(b"a record for somebody else")
        end.write(b"mine")
        incoming.write(b"\x17\x03\x03\x40\x00 a part of a record")
        outgoing.write(b"a record for somebody else")
        line.deliver()
        assert ear.heard == b"mine"
        assert not peer.is_closing()
        assert not incoming.pending
        assert not outgoing.pending
    incoming.write(b"junk")
    outgoing.write(b"junk")
    assert Line().told == [None, None]
    outgoing.write(b"junk")
    line.ends[0].write_eof()
    line.deliver()
    assert line.ears[1].ends == 1


async def test_a_refused_handshake_disturbs_no_other() -> None:
    line, refused = Line(), Secured(SERVER, ready=lambda _: None, server_side=True)
    refused.connection_made(Wire())
    refused.data_received(b"\x16\x03\x01\x00\x05hello" + b"GET / HTTP/1.1\r\n\r\n")
    assert refused.is_closing()
    line.ends[0].write(b"x" * 40_000)
    line.deliver()
    assert line.ears[1].heard == b"x" * 40_000


def test_each_loop_has_buffers_of_its_own() -> None:
    async def incoming() -> ssl.MemoryBIO:
        return Line().ends[0]._incoming

    assert asyncio.run(incoming()) is not asyncio.run(incoming())


async def test_the_end_is_said_although_the_peer_still_speaks() -> None:
    """Records that wait here unread are not lost over the goodbye."""
    line = Line()
    client, server = line.ends
    client.pause_reading()
    server.write(b"x" * 100_000)
    client.data_received(bytes(line.wires[1].waits))  # came with the read that was under way
    line.wires[1].waits.clear()
    client.write_eof()
    line.deliver()
    assert line.ears[1].ends == 1
    server.write(b"y")
    server.write_eof()
    client.resume_reading()
    await asyncio.sleep(0)
    line.deliver()
    assert line.ears[0].heard == b"x" * 100_000 + b"y"
    assert line.ears[0].ends == 1


async def test_who_follows_on_a_protocol_that_stopped_reading_hears_the_end() -> None:
    """After a 101 the connection is somebody else's, and its end may have come with it."""

    class First(Ear):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            client.pause_reading()

    line = Line()
    client, server = line.ends
    first, second = First(), line.ears[0]
    client.set_protocol(first)
    server.write(b"all")
    server.write_eof()
    line.deliver()
    assert (first.heard, first.ends) == (b"all", 0)
    client.set_protocol(second)
    for _ in range(2):
        client.resume_reading()
        await asyncio.sleep(0)
    client.pause_reading()
    client.resume_reading()
    await asyncio.sleep(0)
    assert (second.heard, second.ends, first.ends) == (b"", 1, 0)


async def test_nothing_is_kept_of_what_follows_the_end() -> None:
    """A peer could fill the memory with it: what is ours to send may take any time."""
    line = Line()
    client, server = line.ends
    server.write(b"all")
    server.write_eof()
    line.wires[1].waits += b"\x17" * 1000  # comes with the end
    line.deliver()
    for _ in range(10):
        client.data_received(b"\x17" * 1000)
    assert (line.ears[0].heard, line.ears[0].ends, line.ears[0].lost) == (b"all", 1, [])
    assert len(client._unread) == client._incoming.pending == 0
    client.write(b"ours")
    line.deliver()
    assert line.ears[1].heard == b"ours"


async def test_one_that_is_cut_off_is_broken_and_not_ended() -> None:
    line = Line()
    client, server = line.ends
    server.write(b"half of")
    line.deliver()
    assert not client.eof_received()
    client.connection_lost(None)
    ear = line.ears[0]
    assert (ear.heard, ear.ends) == (b"half of", 0)
    assert isinstance(ear.lost[0], ConnectionResetError)


async def test_garbage_in_the_middle_breaks_it() -> None:
    line = Line()
    client, server = line.ends
    server.write(b"fine")
    line.deliver()
    client.data_received(b"\x17\x03\x03\x00\x20" + b"\0" * 32)
    client.connection_lost(None)
    ear = line.ears[0]
    assert (ear.heard, ear.ends) == (b"fine", 0)
    assert isinstance(ear.lost[0], ssl.SSLError)


async def test_nothing_is_written_after_the_end() -> None:
    line = Line()
    line.ends[0].write_eof()
    line.ends[0].write_eof()
    with pytest.raises(RuntimeError, match="after write_eof"):
        line.ends[0].write(b"x")


async def test_what_is_written_to_a_closed_connection_is_dropped_as_asyncio_does() -> None:
    """Who answers several requests at once may learn late that the peer has left."""
    closed, left = Line(), Line()
    closed.ends[0].close()
    left.ends[0].write_eof()
    left.ends[0].connection_lost(None)
    for line in (closed, left):
        sent = line.wires[0].writes
        line.ends[0].write(b"x")
        line.ends[0].writelines([b"x", b"y"])
        assert line.wires[0].writes == sent


@pytest.mark.parametrize("size", [5, 200_000])
async def test_what_came_before_there_was_a_protocol_is_carried(size: int) -> None:
    """The peer's first bytes may come with the end of the handshake, and before the peer was checked."""
    line = Line(carried=False)
    client, server = line.ends
    server.set_protocol(line.ears[1])
    server.write(b"x" * size)
    line.deliver()
    assert not line.ears[0].heard
    client.carry(line.ears[0])
    line.deliver()
    assert line.ears[0].made is client
    assert line.ears[0].heard == b"x" * size


async def test_an_end_that_comes_before_there_is_a_protocol_waits_for_it() -> None:
    """A server may answer and close before the caller has looked at its certificate."""
    line = Line(carried=False)
    client, server = line.ends
    assert line.wires[0].paused, "what comes now, and its end, has nobody to go to"
    server.set_protocol(line.ears[1])
    server.write(b"bye")
    server.close()
    client.carry(line.ears[0])
    line.deliver()
    assert (line.ears[0].heard, line.ears[0].ends) == (b"bye", 1)


@pytest.mark.parametrize("why", [None, BrokenPipeError("gone")])
async def test_one_lost_before_there_was_a_protocol_fails_who_waits(why: Exception | None) -> None:
    client = Line(carried=False).ends[0]
    client.connection_lost(why)
    with pytest.raises(type(why) if why else ConnectionResetError):
        await client.shaken()


async def test_a_protocol_may_stop_reading_as_it_begins() -> None:
    class Hesitant(Ear):
        def connection_made(self, transport: Any) -> None:
            transport.pause_reading()

    line = Line(carried=False)
    client, server = line.ends
    server.carry(line.ears[1])
    server.write(b"early")
    ear = Hesitant()
    client.carry(ear)
    line.deliver()
    assert not ear.heard
    client.resume_reading()
    line.deliver()
    assert ear.heard == b"early"


async def test_a_large_write_is_one_of_the_transports() -> None:
    line = Line()
    before = line.wires[1].writes
    line.ends[1].write(b"x" * 100_000)
    assert line.wires[1].writes == before + 1


async def test_a_closed_one_knows_its_protocol_no_more() -> None:
    """The two would else wait for the collector of cycles, and a busy proxy's memory grow meanwhile."""
    line = Line()
    client = line.ends[0]
    assert client.get_protocol() is line.ears[0]
    client.abort()
    client.connection_lost(None)
    assert client.get_protocol() is client
    assert line.ears[0].lost == [None]


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\xff\xff"])
async def test_what_is_no_record_is_refused_at_once(data: bytes) -> None:
    """It is not waited for what its length would be."""
    told: list[Exception | None] = []
    server = Secured(SERVER, ready=told.append, server_side=True)
    server.connection_made(Wire())
    server.data_received(data)
    assert isinstance(told[0], ssl.SSLError)


async def test_half_a_record_waits_for_its_other_half() -> None:
    line = Line()
    client, server = line.ends
    server.write(b"x")
    record = bytes(line.wires[1].waits)
    for size in (1, 3, 2):  # within its head, too
        client.data_received(record[:size])
        record = record[size:]
        assert not line.ears[0].heard
    client.data_received(record)
    assert line.ears[0].heard == b"x"


@given(st.lists(st.sampled_from([0, 1, 100, 16_383, 16_384, 16_385, 40_000]), max_size=6))
def test_many_pieces_take_no_more_records_than_one(sizes: list[int]) -> None:
    def records(waits: bytearray) -> int:
        at = count = 0
        while at < len(waits):
            at += 5 + int.from_bytes(waits[at + 3 : at + 5])
            count += 1
        return count

    async def main() -> None:
        pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
        line = Line()
        line.ends[0].write(b"".join(pieces))
        one = records(line.wires[0].waits)
        line.deliver()
        line.ears[1].heard.clear()
        line.ends[0].writelines(pieces)
        assert records(line.wires[0].waits) == one
        line.deliver()
        assert line.ears[1].heard == b"".join(pieces)

    asyncio.run(main())

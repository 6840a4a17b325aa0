"""whatever bytes a server sends, in whatever pieces, the engine returns the response those bytes mean, or raises RemoteProtocolError, within the deadline, and leaks no connection.

That error is `TransportFailure` of kind `protocol`, `reset` or `timeout` here, and `BadReply`, an
`httpx.RemoteProtocolError`, above.

The examples are the same every time; `pytest tests/wire/test_fuzz.py --hypothesis-profile=long` tries many
more, others each time (`--hypothesis-seed` repeats them).
"""  # noqa: E501 - the first line is the invariant, word for word

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from meshsdk.core.model import Endpoint, TransportFailure
from meshsdk.wire.aio import AsyncioEngine
from meshsdk.wire.blocking import BlockingEngine
from meshsdk.wire.engine import Bounds, Request
from tests.wire.http1.reading import Fields, Read, Refused, bytewise, cut, read
from tests.wire.http1.replies import Exchange, Reply, damaged, exchanges
from tests.wire.scripted import Peer, Server, eventually

LONG = settings.get_current_profile_name() == "long"
pytestmark = [
    pytest.mark.timeout(0 if LONG else 300),  # a failure takes a while to be made small
    pytest.mark.no_cover,  # what is covered here is covered by unit tests; tracing would only slow it down
]
CUTS = st.lists(st.integers(0, 1 << 17), max_size=5)


def bounded(examples: int) -> Callable[[Any], Any]:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    common = settings(report_multiple_bugs=False, suppress_health_check=slow)
    if LONG:
        return common
    return settings(common, max_examples=examples, deadline=None, derandomize=True, database=None)


# --- the reader against itself and h11 ----------------------------------------------------------------


@dataclass(frozen=True)
class ByH11:
    """What h11 makes of a reply; `kept` means that it would send another request after it."""

    status: int
    reason: bytes
    version: str
    fields: Fields
    body: bytes
    trailers: Fields
    surplus: bytes
    kept: bool


def by_h11(data: bytes, method: str) -> ByH11 | str:
    """What h11 reads, or why it does not, if the server closes after `data`."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 24)
    asks = [("Host", "x"), ("Connection", "upgrade"), ("Upgrade", "x"), ("Content-Length", "0")]
    client.send(h11.Request(method=method, target="/", headers=asks))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    head: Any = None
    body = b""
    ended = False
    try:
        while True:
            event_ = client.next_event()
            if event_ is h11.NEED_DATA:
                assert not ended
                client.receive_data(b"")
                ended = True
            elif event_ is h11.PAUSED:  # after 101
                return _by_h11(head, body, [], client.trailing_data[0], False)
            elif isinstance(event_, h11.Response | h11.InformationalResponse):
                head = event_
            elif isinstance(event_, h11.Data):
                body += event_.data
            elif isinstance(event_, h11.EndOfMessage):
                surplus = client.trailing_data[0]
                kept = client.their_state is h11.DONE and not surplus and not ended
                return _by_h11(head, body, list(event_.headers), b"", kept)
            else:
                return f"{event_}"
    except h11.RemoteProtocolError as error:
        return str(error)


def _by_h11(head: Any, body: bytes, trailers: Fields, surplus: bytes, kept: bool) -> ByH11:
    version = head.http_version.decode()
    return ByH11(head.status_code, head.reason, version, list(head.headers), body, trailers, surplus, kept)


def lowered(fields: Fields) -> Fields:
    """Names in lower case, as h11 gives them, and `chunked` too."""
    return [(name.lower(), value.lower() if name.lower() == b"transfer-encoding" else value) for name, value in fields]


# Replies that h11 refuses and we accept, by h11's words. Each is harmless, because:
HARMLESS = [
    # Zeros before a chunk's size: every parser that takes them counts the same chunk, and `Limits.framing` bounds them.
    r"illegal chunk header: bytearray\(b'0{5,}[0-9a-fA-F]*(;.*)?\\r\\n'\)",
]


def compare(ours: Read | Refused, theirs: ByH11 | str) -> None:
    """Equal where both accept; ours may be stricter, and laxer only in what is listed."""
    if isinstance(ours, Refused):
        event("refused")
        return
    if isinstance(theirs, str):
        event("incomplete" if not ours.complete else "accepted by us alone")
        assert not ours.complete or any(re.fullmatch(words, theirs) for words in HARMLESS), theirs
        return
    event("accepted")
    assert ours.complete
    assert (ours.status, ours.reason, ours.version) == (theirs.status, theirs.reason, theirs.version)
    assert lowered(ours.fields) == theirs.fields
    assert ours.body == theirs.body
    assert lowered(ours.trailers) == theirs.trailers
    assert ours.surplus == theirs.surplus
    # h11 keeps no connection to HTTP/1.0; who says `keep-alive` there means it (RFC 9112, C.2.2).
    assert theirs.kept or not ours.reusable or (ours.version == "1.0" and ours.status != 101)


def in_any_pieces(data: bytes, method: str, cuts: list[int]) -> Read | Refused:
    """What is read of `data`, which must be the same however it is cut."""
    whole = read([data], method)
    assert read(cut(data, cuts), method) == whole
    if len(data) < 4096 or isinstance(whole, Refused):
        assert read(bytewise(data), method) == whole
    else:  # the pieces in the middle of a long body are alike
        assert read([*bytewise(data[:1500]), data[1500:-1500], *bytewise(data[-1500:])], method) == whole
    return whole


@bounded(80)
@given(exchange=exchanges(), cuts=CUTS)
def test_valid_replies_are_read_as_they_are_meant(exchange: Exchange, cuts: list[int]) -> None:
    found = in_any_pieces(exchange.data, exchange.method, cuts)
    assert found == exchange.means
    compare(found, by_h11(exchange.data, exchange.method))


@bounded(250)
@given(reply=damaged(), cuts=CUTS)
@example(Reply("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\t\r\n\r\n2\r\nok\r\n0\r\n\r\n"), [])
@example(Reply("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n"), [])
@example(Reply("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + b"z" * 20_000), [])
@example(Reply("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n"), [])
@example(Reply("GET", b"HTTP/1.1 200 OK\r\nContent-Length: %b2\r\n\r\nok" % (b"0" * 5000)), [])
@example(Reply("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\n\r\n" % (b"0" * 25)), [])  # harmless
@example(Reply("HEAD", b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), [])
@example(Reply("GET", b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw"), [80])
def test_damaged_replies_are_read_as_h11_does_or_refused(reply: Reply, cuts: list[int]) -> None:
    method, data = reply.method, reply.data
    compare(in_any_pieces(data, method, cuts), by_h11(data, method))


@bounded(300)
@given(start=st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n"]), rest=st.binary(max_size=200), cuts=CUTS)
def test_noise(start: bytes, rest: bytes, cuts: list[int]) -> None:
    compare(in_any_pieces(start + rest, "GET", cuts), by_h11(start + rest, "GET"))


# --- both engines, through real sockets ---------------------------------------------------------------


class Scripted:
    """A server that answers each request with the pieces at hand, and then closes, or says no more."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closes = True
        self.server = Server(self._script)
        self.endpoint = Endpoint("fuzz", self.server.host, self.server.port)

    def _script(self, peer: Peer) -> None:
        pieces, closes = self.pieces, self.closes
        peer.request()
        for piece in pieces:
            peer.send(piece)
            time.sleep(0.0002)  # so that pieces arrive as such, mostly
        if closes:
            peer.sock.shutdown(1)
        peer.stall()


@dataclass
class Result:
    """What an engine made of a reply, and how long it took."""

    read: Read | str
    seconds: float


def as_read(reply: Any, body: bytes, surplus: bytes) -> Read:
    version = reply.extensions["http_version"].decode().removeprefix("HTTP/")
    return Read(
        reply.status, reply.reason, version, list(reply.headers), body, reply.trailers, True, False, surplus, False
    )


class Awaiting:
    """The asyncio engine, one loop for all examples."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()

    def call(self, scripted: Scripted, method: str, seconds: float) -> Result:
        return self.runner.run(self._call(scripted, method, seconds))

    async def _call(self, scripted: Scripted, method: str, seconds: float) -> Result:
        engine = AsyncioEngine()
        began = time.monotonic()
        try:
            found: Read | str = await self._exchange(engine, scripted, method, began + seconds)
        except TransportFailure as failure:
            found = failure.failure.kind
        took = time.monotonic() - began
        pools = engine._loops.current()
        for _ in range(10):  # asyncio closes a transport in its next turn, and tells in the one after that
            await asyncio.sleep(0)
        for pool in pools._pools.values():
            assert pool._open == set(pool._idle)
            assert not pool._waiting
        assert not pools.watch._waits
        await engine.aclose()
        return Result(found, took)

    async def _exchange(self, engine: AsyncioEngine, scripted: Scripted, method: str, deadline: float) -> Read:
        reply = await engine.send(scripted.endpoint, request(method), Bounds(deadline=deadline, body_deadline=deadline))
        body = b"".join([piece async for piece in reply])
        surplus = b""
        if reply.status == 101:
            stream = reply.extensions["network_stream"]
            while scripted.closes and (data := await stream.read(65536, 5)):
                surplus += data
        await reply.aclose()
        return as_read(reply, body, surplus)

    def close(self) -> None:
        self.runner.close()


class Blocking:
    """The blocking engine."""

    def call(self, scripted: Scripted, method: str, seconds: float) -> Result:
        engine = BlockingEngine()
        began = time.monotonic()
        try:
            found: Read | str = self._exchange(engine, scripted, method, began + seconds)
        except TransportFailure as failure:
            found = failure.failure.kind
        took = time.monotonic() - began
        for lane in engine._lanes._lanes.values():
            assert lane.open == set(lane.idle)
            assert lane.users == 0
        engine.close()
        return Result(found, took)

    def _exchange(self, engine: BlockingEngine, scripted: Scripted, method: str, deadline: float) -> Read:
        reply = engine.send(scripted.endpoint, request(method), Bounds(deadline=deadline, body_deadline=deadline))
        body = b"".join(reply)
        surplus = b""
        if reply.status == 101:
            stream = reply.extensions["network_stream"]
            while scripted.closes and (data := stream.read(65536, 5)):
                surplus += data
        reply.close()
        return as_read(reply, body, surplus)

    def close(self) -> None:
        pass


def request(method: str) -> Request:
    return Request(method, b"/", [(b"Host", b"fuzz")], b"", {})


@pytest.fixture(scope="module")
def scripted() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.server.close()


@pytest.fixture(scope="module", params=[Awaiting, Blocking])
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    engine = request.param()
    yield engine
    engine.close()


REPLIES: st.SearchStrategy[Reply] = st.one_of(damaged(), exchanges())


def meant(data: bytes, method: str, closes: bool) -> Read | str:
    """What an engine must say of `data`."""
    found = read([data], method, fin=closes)
    if isinstance(found, Refused):
        return "protocol"
    if not found.complete:
        return "reset" if closes else "timeout"
    return replace(found, reusable=False, continued=False, surplus=found.surplus if closes else b"")


@bounded(100)
@given(reply=REPLIES, cuts=CUTS)
def test_engines_return_what_the_bytes_mean(scripted: Scripted, engine: Any, reply: Reply, cuts: list[int]) -> None:
    method, data = reply.method, reply.data
    scripted.pieces, scripted.closes = cut(data, cuts), True
    result = engine.call(scripted, method, 5.0)
    assert result.read == meant(data, method, closes=True)
    eventually(lambda: scripted.server.open_connections == 0)


@bounded(15)
@given(reply=REPLIES, cuts=CUTS)
def test_engines_wait_no_longer_than_the_deadline(
    scripted: Scripted, engine: Any, reply: Reply, cuts: list[int]
) -> None:
    method, data = reply.method, reply.data
    scripted.pieces, scripted.closes = cut(data, cuts), False
    expected = meant(data, method, closes=False)
    seconds = 0.1 if expected == "timeout" else 5.0  # a busy machine needs longer than 0.1 for what does come
    result = engine.call(scripted, method, seconds)
    assert result.read == expected
    assert result.seconds < seconds + 1.0
    eventually(lambda: scripted.server.open_connections == 0)

"""whatever bytes a client sends, every request forwarded is one that both nginx and the app parse the same way, or nothing is forwarded.

Through the whole proxy, by either way: what it writes to the app is kept as it is, and shown to real nginx and Node.
"""  # noqa: E501 - the first line is the invariant, word for word

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from meshsdk.wire.http1 import Asked, Refused, RequestReader
from meshsdk_sidecar.loops import new_loop
from tests.sidecar.proxy.ends import Cut, Message, Peer, ok, read_body, read_head
from tests.sidecar.proxy.rig import Rig
from tests.sidecar.smuggling.corpus import SHAPES, Shape
from tests.sidecar.smuggling.witnesses import Seen, Witness, witnesses
from tests.wire.http1.asks import Sent, damaged, sendings

LONG = settings.get_current_profile_name() == "long"
pytestmark = pytest.mark.timeout(0 if LONG else 120)
FUZZ = settings(
    *([] if LONG else [settings(max_examples=60, deadline=None, derandomize=True, database=None)]),
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)

# Answered by the proxy itself, or by nginx with 405 whatever else there is.
OURS, UNSERVED = b"CONNECT", b"TRACE"


def read_all(data: bytes) -> tuple[list[Asked], int]:
    """The complete requests in `data`, where every upgrade is declined; the status if the rest is refused."""
    reader, status = RequestReader(), 0
    try:
        reader.feed(data)
        while reader.held:
            reader.resume()
    except Refused as refused:
        status = refused.status
    return [asked for asked in reader.queue if asked.complete], status


class Recorder:
    """The app: keeps what is written to it, connection by connection, and answers each request."""

    def __init__(self) -> None:
        self.wires: list[bytearray] = []

    async def script(self, peer: Peer) -> None:
        wire, reader = bytearray(), asyncio.StreamReader(limit=2**20)
        self.wires.append(wire)

        async def pump() -> None:
            try:
                while data := await peer.reader.read(2**18):
                    wire.extend(data)
                    reader.feed_data(data)
            finally:
                reader.feed_eof()

        pumping = asyncio.create_task(pump())
        try:
            while True:
                peer.app.requests.append(await read_body(reader, await read_head(reader), reply=False))
                await peer.send(ok())
        finally:
            pumping.cancel()


class Proxy:
    """A rig on a loop of its own, asked from outside."""

    def __init__(self, folder: Path, both: list[Witness]) -> None:
        self.witnesses = both
        self._runner = asyncio.Runner(loop_factory=new_loop)
        self.recorder = Recorder()
        self.rig = self._runner.run(Rig(self.recorder.script).open())

    def close(self) -> None:
        self._runner.run(self.rig.close())
        self._runner.close()

    def send(self, way: str, data: bytes, answers: int, ends: bool) -> tuple[list[Message], list[bytes], list[Message]]:
        """The answers, what was written to the app on each connection, and the requests it read."""
        return self._runner.run(self._send(way, data, answers, ends))

    async def _send(
        self, way: str, data: bytes, answers: int, ends: bool
    ) -> tuple[list[Message], list[bytes], list[Message]]:
        rig, found = self.rig, list[Message]()
        client = await rig.client(way)
        client.write(data)
        methods = [asked.method for asked in read_all(data)[0]]
        for number in range(answers + ends):
            method = methods[number] if number < min(answers, len(methods)) else b"GET"
            try:
                found.append(await asyncio.wait_for(client.reply(method), 5))
            except (Cut, ConnectionError):
                break
        if ends:
            assert await client.closed()
        client.reset()
        rig.clients.clear()
        await rig.settled()
        for peer in tuple(rig.app.peers):
            peer.writer.close()
        await rig.plane.pools.close()
        await rig.plane.app_pools.close()
        wires, requests = [bytes(wire) for wire in self.recorder.wires], list(rig.app.requests)
        self.recorder.wires.clear()
        rig.app.requests.clear()
        return found, wires, requests


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("witnesses")
    with witnesses(folder) as both:
        proxy = Proxy(folder, both)
        yield proxy
        proxy.close()


def check(proxy: Proxy, way: str, data: bytes) -> tuple[list[Message], list[Message]]:
    """Send, and show to the witnesses what was forwarded; the answers, and the requests forwarded."""
    requests, refused = read_all(data)
    answers, wires, forwarded = proxy.send(way, data, len(requests), refused != 0)
    wanted = [_origin(request) for request in requests if request.method != OURS]
    assert [(m.method, m.target, m.body) for m in forwarded] == wanted
    for wire in wires:
        _witnessed(proxy, wire)
    return answers, forwarded


def _origin(request: Asked) -> tuple[bytes, bytes, bytes]:
    target = request.target
    absolute = re.fullmatch(rb"(?i)https?://[^/?]*(.*)", target, re.DOTALL)
    if absolute is not None:
        target = absolute[1] if absolute[1].startswith(b"/") else b"/" + absolute[1]
        if request.method == b"OPTIONS" and target == b"/" and not request.target.endswith(b"/"):
            target = b"*"
    return request.method, target, b"".join(request.pieces)


def _witnessed(proxy: Proxy, wire: bytes) -> None:
    """Both read the same of what was written on one connection, and what our reader reads."""
    read, refused = read_all(wire)
    assert not refused
    for witness in proxy.witnesses:
        found = [seen for seen in witness.read(wire) if isinstance(seen, Seen) or seen == 405]
        for request, seen in zip(read, found, strict=False):
            if seen == 405:
                assert request.method == UNSERVED
                continue
            assert isinstance(seen, Seen)
            assert (seen.method.encode(), seen.target.encode(), seen.body) == (
                request.method, request.target, b"".join(request.pieces),
            ), f"{witness.name} reads {seen} of {wire!r}"  # fmt: skip
            if request.upgrade and witness.name == "node":  # which speaks something else from here on
                break
        else:
            assert len(found) == len(read), f"{witness.name} reads {found} of {wire!r}"


@pytest.mark.parametrize("way", ["in", "up"])
def test_every_known_shape(proxy: Proxy, way: str) -> None:
    failed = [f"{shape.name}: {fault}" for shape in SHAPES if (fault := _fault(proxy, way, shape))]
    assert not failed, "\n".join(failed)


def _fault(proxy: Proxy, way: str, shape: Shape) -> str:
    try:
        answers, forwarded = check(proxy, way, shape.data)
    except AssertionError as error:
        return str(error)[:2000]
    if any(message.target == b"/hidden" for message in forwarded):
        return "the hidden request was forwarded"
    last = answers[-1].status if answers else 0
    if shape.status and last != shape.status:
        return f"answered {last} in place of {shape.status}"
    return "" if shape.status or last == 200 else f"answered {last}"


@FUZZ
@given(sent=sendings())
def test_valid_requests(proxy: Proxy, sent: Sent) -> None:
    check(proxy, "in", sent.data)


@FUZZ
@given(sent=damaged())
def test_damaged_requests(proxy: Proxy, sent: Sent) -> None:
    check(proxy, "up", sent.data)

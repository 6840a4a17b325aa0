"""whatever bytes a client sends, every request forwarded is one that both nginx and the app parse the same way, or nothing is forwarded.

Here with h11 for the app, and the reader for the proxy; `tests/sidecar/smuggling` has nginx and Node. The examples are
the same every time; `pytest tests/wire/http1/test_requests_fuzz.py --hypothesis-profile=long` tries many more.
"""  # noqa: E501 - the first line is the invariant, word for word

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.sidecar.smuggling.corpus import SHAPES
from tests.wire.http1.asking import Fields, Heard, Request, ask, bytewise
from tests.wire.http1.asks import ONE_BYTE_OFF, Sent, damaged, one_byte_off, sendings
from tests.wire.http1.reading import cut

LONG = settings.get_current_profile_name() == "long"
pytestmark = [
    pytest.mark.timeout(0 if LONG else 300),  # a failure takes a while to be made small
    pytest.mark.no_cover,  # what is covered here is covered by unit tests; tracing would only slow it down
]
CUTS = st.lists(st.integers(0, 1 << 17), max_size=5)


def bounded(examples: int) -> Callable[[Any], Any]:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    common = settings(report_multiple_bugs=False, suppress_health_check=slow)
    if LONG:
        return common
    return settings(common, max_examples=examples, deadline=None, derandomize=True, database=None)


def in_any_pieces(data: bytes, cuts: list[int]) -> Heard:
    """What is read of `data`, which must be the same however it is cut: the refusal and its kind too."""
    whole = ask([data])
    assert ask(cut(data, cuts)) == whole
    if len(data) < 6000:
        assert ask(bytewise(data)) == whole
    else:  # the pieces in the middle of a long body are alike
        assert ask([*bytewise(data[:3000]), data[3000:-3000], *bytewise(data[-3000:])]) == whole
    return whole


# --- the same bytes by h11 ----------------------------------------------------------------------------


@dataclass
class ByH11:
    """One request as h11 reads it."""

    method: bytes
    target: bytes
    version: str
    fields: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    complete: bool = False


def by_h11(data: bytes, held: int, ended: int) -> tuple[list[ByH11], str, bytes]:
    """What h11 reads, why it reads no further if that is a fault, and what it leaves after request number `held`.

    That one asks for another protocol; h11 believes so of others too, which are declined here, `ended` for good.
    """
    found: list[ByH11] = []
    while data:
        while data.startswith(b"\r\n"):  # before a request, RFC 9112, 2.2; h11 lets nobody do that
            data = data[2:]
        server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 24)
        server.receive_data(data)
        try:
            _read_one(server, found)
        except h11.RemoteProtocolError as error:
            return found, str(error), b""
        if len(found) == held:
            assert server.their_state is h11.MIGHT_SWITCH_PROTOCOL
            return found, "", server.trailing_data[0]
        if len(found) == ended and server.their_state is h11.MIGHT_SWITCH_PROTOCOL:
            break
        if server.their_state not in (h11.DONE, h11.MIGHT_SWITCH_PROTOCOL):
            break  # it is incomplete, or the connection ends
        data = server.trailing_data[0]
    return found, "", b""


def _read_one(server: h11.Connection, found: list[ByH11]) -> None:
    while True:
        event_ = server.next_event()
        if isinstance(event_, h11.Request):
            version = event_.http_version.decode()
            found.append(ByH11(event_.method, event_.target, version, event_.headers.raw_items()))
        elif isinstance(event_, h11.Data):
            found[-1].body += event_.data
        elif isinstance(event_, h11.EndOfMessage):
            found[-1].trailers = event_.headers.raw_items()
            found[-1].complete = True
            return
        else:
            return


# Requests that h11 refuses and we accept, by h11's words. Each is harmless, because:
HARMLESS = [
    # Zeros before a chunk's size: every parser that takes them counts the same chunk, and we take 16 digits at most.
    r"illegal chunk header: bytearray\(b'0{5,}[0-9a-fA-F]*(;.*)?\\r\\n'\)",
]


def compare(ours: Heard, data: bytes) -> None:
    """Every request we read is one that h11 reads the same way; ours may be stricter."""
    last = ours.requests[-1] if ours.requests else None
    held = last is not None and last.complete and (last.upgrade or last.method == b"CONNECT")
    ended = last is not None and not last.keeps_alive
    count = len(ours.requests)
    theirs, words, surplus = by_h11(data, count if held else -1, count if ended else -1)
    for at, request in enumerate(ours.requests):
        if at == len(theirs) and at and theirs[at - 1].version == "1.0":
            return  # h11 keeps no connection to HTTP/1.0
        assert at < len(theirs), f"h11 does not read {request}: {words}"
        same(request, theirs[at], words)
    if not ours.status:
        assert len(theirs) == count
        assert not words or ours.mid_head or any(re.fullmatch(known, words) for known in HARMLESS), words
        assert ours.surplus == surplus


def same(request: Request, other: ByH11, words: str) -> None:
    assert (request.method, request.target, request.version) == (other.method, other.target, other.version)
    assert lowered(request.fields) == lowered(other.fields)
    if words and any(re.fullmatch(known, words) for known in HARMLESS):
        assert request.body.startswith(other.body)
        return
    if request.complete:
        assert other.complete, words
        assert request.body == other.body
        assert request.trailers == [trailer for trailer in other.trailers if trailer in request.trailers]
    else:
        assert request.body.startswith(other.body) or other.body.startswith(request.body)


def lowered(fields: Fields) -> Fields:
    return [(name, value.lower() if name.lower() == b"transfer-encoding" else value) for name, value in fields]


# --- the tests ----------------------------------------------------------------------------------------


@bounded(50)
@given(sent=sendings(), cuts=CUTS)
def test_valid_requests_are_read_as_they_are_meant(sent: Sent, cuts: list[int]) -> None:
    found = in_any_pieces(sent.data, cuts)
    assert (found.status, found.requests) == (0, sent.means)
    compare(found, sent.data)


@bounded(80)
@given(sent=damaged(), cuts=CUTS)
@example(
    Sent(b"GET / HTTP/1.1\r\nUpgrade: x\r\nConnection: close\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), []
)
@example(Sent(b"GET / HTTP/1.1\r\nHost: mesh\r\nTransfer-Encoding: chunked\r\n\r\n000000\r\n\r\n"), [])
def test_damaged_requests_are_read_as_h11_does_or_refused(sent: Sent, cuts: list[int]) -> None:
    compare(in_any_pieces(sent.data, cuts), sent.data)


@bounded(200)
@given(
    start=st.sampled_from([b"", b"GET ", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-"]),
    rest=st.binary(max_size=200),
    cuts=CUTS,
)
def test_noise(start: bytes, rest: bytes, cuts: list[int]) -> None:
    compare(in_any_pieces(start + rest, cuts), start + rest)


@bounded(200)
@given(shape=st.sampled_from(SHAPES), behind=st.sampled_from(SHAPES), cuts=CUTS)
def test_shapes_behind_shapes(shape: Any, behind: Any, cuts: list[int]) -> None:
    data = shape.data + behind.data
    compare(in_any_pieces(data, cuts), data)


def test_one_byte_at_every_place() -> None:
    """All 256 of them were tried, without another result; these are those that have been mistaken for another."""
    for data in ONE_BYTE_OFF:
        for variant in one_byte_off(data, b"\0\t\n\r #,:A\x80"):
            compare(in_any_pieces(variant, []), variant)


def test_every_shape_against_h11() -> None:
    for shape in SHAPES:
        compare(ask([shape.data]), shape.data)  # also in the test above, but there by chance

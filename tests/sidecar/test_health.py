"""Whether the app is well: the verdict by thresholds, the pauses, and what a look at real ends finds."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk_sidecar.config import HealthCheck
from meshsdk_sidecar.health import IMPATIENT, AppHealth, Verdict, accepts, look
from meshsdk_sidecar.place import Place
from tests.real_consul import free_ports

SILENT = "nothing listens"


@pytest.mark.parametrize(
    ("looks", "verdicts"),
    [
        ("w", [True]),
        ("i", [False]),
        ("wii", [True, True, True]),
        ("wiii", [True, True, True, False]),
        ("wiiwiii", [True, True, True, True, True, True, False]),
        ("iw", [False, False]),
        ("iww", [False, False, True]),
        ("iwiww", [False, False, False, False, True]),
    ],
)
def test_the_verdict_turns_by_looks_in_a_row(looks, verdicts):
    verdict = Verdict(unhealthy=3, healthy=2)
    found = []
    for each in looks:
        verdict.note("" if each == "w" else SILENT)
        found.append(verdict.well)
    assert found == verdicts


@given(st.lists(st.booleans(), min_size=1), st.integers(1, 4), st.integers(1, 4))
def test_it_turns_only_after_enough_of_the_other_kind(looks, unhealthy, healthy):
    """Invariant: a verdict differs from the one before only where the last `needed` looks all say so, and has a reason
    exactly while it is ill."""
    verdict = Verdict(unhealthy, healthy)
    before = None
    for number, well in enumerate(looks):
        turned = verdict.note("" if well else SILENT)
        assert turned == (verdict.well is not before)
        if turned and before is not None:
            needed = healthy if well else unhealthy
            assert looks[number + 1 - needed : number + 1] == [well] * needed
        assert bool(verdict.why) == (verdict.well is False)
        before = verdict.well


async def watched(looks: list[str], check: HealthCheck) -> tuple[list[str], list[float]]:
    """What an app's health was after each look, and the pauses between them."""
    found, pauses, left = [], [], list(looks)

    async def looked(place, how):
        return left.pop(0)

    async def sleep(seconds):
        found.append(health.trouble)
        pauses.append(seconds)
        if not left:
            raise asyncio.CancelledError

    health = AppHealth(Place("127.0.0.1", 1), check, looked=looked, sleep=sleep, rng=random.Random(7))
    assert health.trouble == "the app at 127.0.0.1:1 has not been looked at yet"
    with pytest.raises(asyncio.CancelledError):
        await health.run()
    return found, pauses


async def test_an_app_that_is_not_well_is_looked_at_more_often(caplog):
    caplog.set_level("INFO", "meshsdk.sidecar")
    found, pauses = await watched([SILENT, "", "", SILENT, SILENT, ""], HealthCheck(unhealthy=2))
    assert found == [SILENT, "", "", "", SILENT, ""]
    expected = [IMPATIENT, 5.0, 5.0, 5.0, IMPATIENT, 5.0]
    for pause, middle in zip(pauses, expected, strict=True):
        assert middle * 0.9 <= pause <= middle * 1.1
    assert len(set(pauses)) == len(pauses), "no two the same: sidecars must not look in step"
    assert [record.message for record in caplog.records] == [
        f"waiting for the app: {SILENT}",
        "the app at 127.0.0.1:1 is well",
        f"the app is not well, callers are sent elsewhere: {SILENT}",
        "the app at 127.0.0.1:1 is well",
    ]


async def test_who_turned_is_told_and_none_needs_no_look():
    turns = []
    health = AppHealth(Place("127.0.0.1", 1), HealthCheck(tcp=False), turned=lambda: turns.append(1))
    await health.run()
    assert (health.trouble, turns) == ("", [])


# --- looks at real ends -----------------------------------------------------------------------------------


async def answering(text: bytes, check: HealthCheck, *, path: str = "") -> str:
    """Look at a server that says `text` to whatever it is asked, and wait until it has hung up."""
    seen, hung_up = [], asyncio.Event()

    async def serve(reader, writer):
        if text != b"(silence)":
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(text)
        else:
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        hung_up.set()

    server = await asyncio.start_unix_server(serve, path) if path else await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        place = Place(socket=path) if path else Place("127.0.0.1", server.sockets[0].getsockname()[1])
        found = await look(place, check)
        await hung_up.wait()
    assert all(b"GET /healthz HTTP/1.1\r\nHost: " in request for request in seen)
    return found.replace(str(place), "HERE")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", ""),
        (b"HTTP/1.0 204\r\n\r\n", ""),
        (
            b"HTTP/1.1 503 Service Unavailable\r\n\r\ndatabase is down\nmore",
            "GET /healthz at HERE is answered with 503 Service Unavailable: database is down",
        ),
        (b"HTTP/1.1 404 Not Found\r\n\r\n\x00\x01", "GET /healthz at HERE is answered with 404 Not Found"),
        (b"HTTP/1.1 799 Odd\r\n\r\n", "GET /healthz at HERE is answered with 799"),
        (b"SSH-2.0-x\r\n", "GET /healthz at HERE is answered with 'SSH-2.0-x', which is not HTTP"),
        (b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n", "GET /healthz at HERE is answered with 'HTTP/1.1 ²²² OK', which is not HTTP"),
        (b"", "GET /healthz at HERE: the connection was closed without an answer"),
        (b"(silence)", "HERE does not answer within 0.1 s"),
    ],
)
async def test_a_page(text, found, tmp_path):
    check = HealthCheck(http="/healthz", timeout=0.1 if text == b"(silence)" else 5.0)
    assert await answering(text, check) == found
    assert await answering(text, check, path=str(tmp_path / "app.sock")) == found


async def test_a_status_line_in_pieces():
    hung_up = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        for piece in (b"HTTP/1.1 ", b"204", b" No Content\r\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)  # else they are one
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        hung_up.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        place = Place("127.0.0.1", server.sockets[0].getsockname()[1])
        assert await look(place, HealthCheck(http="/healthz")) == ""
        await hung_up.wait()


async def test_a_page_on_another_port_and_a_port_nobody_listens_at():
    (free,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as app:
        place = Place("127.0.0.1", app.getsockname()[1])
        assert await look(place, HealthCheck()) == ""
        assert await look(place, HealthCheck(http="/h", port=free)) == f"nothing listens at 127.0.0.1:{free}"
        assert await accepts(place)
    assert await look(place, HealthCheck()) == f"nothing listens at {place}"
    assert not await accepts(place)


async def test_a_socket_that_is_not_there(tmp_path):
    place = Place(socket=str(tmp_path / "none.sock"))
    assert await look(place, HealthCheck()) == f"nothing listens at {place}"

"""Invariant: whatever a crowd of callers, an app and the instances' coming and going do at once, every call that began
has ended once, nothing is held or open afterwards, and what an orderly caller reads is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from meshsdk.core.model import Snapshot
from tests.real_consul import free_ports
from tests.sidecar.tcp_ends import LOOPS, App, Inbound, Outbound, at, listening, plan, showing, until

RESET = b"\1\0\0\0\0\0\0\0"


@pytest.fixture(autouse=True)
def nothing_raised_in_callbacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelname == "ERROR"] == []


async def moods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Does as the first byte says."""
    mood = await reader.read(1)
    if mood == b"r":
        writer.write(b"x" * 1000)
        writer.transport.get_extra_info("socket").setsockopt(1, 13, RESET)
        writer.transport.abort()
    elif mood == b"f":
        writer.write(b"bye")
        writer.write_eof()
        await reader.read()
    elif mood == b"w":
        await reader.read()
    else:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


class Crowd:
    def __init__(self, port: int, chance: random.Random) -> None:
        self.port = port
        self.chance = chance
        self.came: Counter[str] = Counter()

    async def caller(self) -> None:
        mood = self.chance.choice(["orderly", "orderly", "resets", "finishes", "waits", "leaves", "silent", "slow"])
        await asyncio.sleep(self.chance.random() * 1.5)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(10):
                await getattr(self, mood)(reader, writer)
        except ConnectionError:
            self.came[f"{mood} broken"] += 1
        else:
            self.came[mood] += 1
        finally:
            writer.transport.abort()

    async def orderly(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b"z" * self.chance.randrange(1, 300_000)
        writer.write(b"e" + data)
        writer.write_eof()
        assert await reader.read() == data

    async def resets(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"r")
        await reader.read()
        raise AssertionError("a reset came as an end")

    async def finishes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"f")
        assert await reader.read() == b"bye"

    async def waits(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"w" + b"x" * 1000)
        await asyncio.sleep(self.chance.random() * 0.1)

    async def leaves(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(self.chance.randrange(20)):
            await asyncio.sleep(0)

    async def silent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.chance.random()):
                await reader.read()

    async def slow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"e" + b"x" * 300_000)
        writer.write_eof()
        read = 0
        while data := await reader.read(20_000):
            read += len(data)
            await asyncio.sleep(0.005)
        assert read == 300_000


@pytest.mark.parametrize("loop", LOOPS)
def test_a_crowd(loop: str) -> None:
    async def scene() -> None:
        chance = random.Random(7)
        app = App(moods)
        async with app.at() as endpoint:
            rules = plan(
                timeouts={"connect": 5.0},
                outlier={"consecutive_failures": 0, "success_rate": 0.0},
                breaker={"consecutive_failures": 0},
                retries={"budget_min_per_second": 1000.0},
            )
            into = Inbound(endpoint, plan=rules)
            async with listening(into.carrier.protocol) as inner:
                good, bad = at(inner), at(free_ports(1)[0])
                out = Outbound(good, bad, plan=rules, secure=showing("web"))
                async with listening(out.carrier.protocol) as port:
                    crowd = Crowd(port, chance)
                    before = len(os.listdir("/proc/self/fd"))
                    callers = [asyncio.ensure_future(crowd.caller()) for _ in range(120)]
                    for turn in range(10):
                        await asyncio.sleep(0.15)
                        out.cluster.update(Snapshot("db", (good, bad) if turn % 2 else (good,)))
                    await asyncio.gather(*callers)
                    await until(lambda: out.carrier.idle and into.carrier.idle and not into.carrier.unfinished)
                    await until(lambda: app.open == 0)
                    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
        assert sum(crowd.came.values()) == 120
        assert {mood for mood in crowd.came if "broken" in mood} <= {"resets broken", "leaves broken"}, crowd.came
        assert out.cluster.in_flight == into.cluster.in_flight == into.intake.in_flight == 0
        assert not out.watch._waits
        assert not into.watch._waits
        assert len(out.ended()) <= 120
        assert {event.flag for event in out.ended()} <= {"", "DC", "UC"}

    LOOPS[loop](scene())

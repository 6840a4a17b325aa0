"""A tunnel's rules, without sockets: both ways, half-closed, slow, silent, broken, aborted."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from meshsdk_sidecar.proxy.tunnel import (
    ABORTED,
    ENDED,
    GOODBYE,
    HIGH_WATER,
    IDLE,
    LEFT_LOST,
    RIGHT_LOST,
    STUCK,
    Tunnel,
    TunnelEnd,
)
from tests.sidecar.transports import Transport, World

EVERYTHING = 1 << 40


class Pair:
    """Two connections and the tunnel between them."""

    def __init__(self, *, idle: float = inf, **first: Any) -> None:
        self.world = World()
        self.left = Transport(self.world)
        self.right = Transport(self.world)
        self.ends: list[TunnelEnd] = []
        self.tunnel = Tunnel.join(
            self.left,
            self.right,
            ended=self.ends.append,
            watch=self.world.watch,
            clock=self.world.clock,
            idle=idle,
            **first,
        )
        self.world.run()

    def take(self) -> None:
        self.left.take(EVERYTHING)
        self.right.take(EVERYTHING)
        self.world.run()

    def over(self) -> TunnelEnd:
        (end,) = self.ends
        return end


def test_bytes_go_both_ways_and_are_counted() -> None:
    pair = Pair(to_left=b"220 ", to_right=b"EHLO")
    pair.left.say(b" me")
    pair.right.say(b"you")
    pair.take()
    assert (pair.left.arrived, pair.right.arrived) == (b"220 you", b"EHLO me")
    assert (pair.tunnel.to_left, pair.tunnel.to_right) == (7, 7)
    assert pair.ends == []
    pair.world.pass_(5)
    pair.left.say(None)
    pair.right.say(None)
    pair.take()
    assert pair.over() == TunnelEnd(7, 7, 5.0, ENDED)


@pytest.mark.parametrize("first", ["left", "right"])
def test_an_end_that_has_said_all_is_still_answered(first: str) -> None:
    pair = Pair()
    asks, answers = (pair.left, pair.right) if first == "left" else (pair.right, pair.left)
    asks.say(b"all of it")
    asks.say(None)
    pair.take()
    assert (answers.arrived, answers.saw) == (b"all of it", "eof")
    assert not asks.closing
    pair.world.pass_(1000)
    answers.say(b"an answer")
    answers.say(None)
    pair.take()
    assert (asks.arrived, asks.saw) == (b"an answer", "eof")
    assert pair.over().why == ENDED


def test_an_end_that_came_before_is_told() -> None:
    pair = Pair(to_right=b"GET /", left_done=True)
    pair.take()
    assert (pair.right.arrived, pair.right.saw) == (b"GET /", "eof")
    pair.right.say(b"here")
    pair.right.say(None)
    pair.take()
    assert pair.left.arrived == b"here"
    assert pair.over().why == ENDED


def test_one_that_does_not_read_is_waited_for_with_bounded_buffers() -> None:
    pair = Pair()
    piece = b"x" * 50_000
    for _ in range(60):
        pair.right.say(piece)
    pair.world.run()
    assert pair.right.paused
    assert pair.left.most <= HIGH_WATER + len(piece)
    pair.left.say(b"the other way goes on")
    pair.right.take(EVERYTHING)
    assert pair.right.arrived == b"the other way goes on"
    for _ in range(120):
        pair.left.take(30_000)
        pair.world.run()
    assert len(pair.left.arrived) == 60 * len(piece)
    assert pair.left.most <= HIGH_WATER + len(piece)
    assert not pair.right.paused


def test_silence_is_bounded_and_any_byte_counts() -> None:
    pair = Pair(idle=60)
    for _ in range(5):
        pair.world.pass_(50)
        pair.right.say(b".")
        pair.take()
    assert pair.ends == []
    pair.world.pass_(59.9)
    assert pair.ends == []
    pair.world.pass_(0.2)
    assert pair.over().why == IDLE
    assert (pair.left.saw, pair.right.saw) == ("reset", "reset")


def test_one_that_reads_slowly_is_not_idle() -> None:
    pair = Pair(idle=10)
    pair.right.say(b"x" * 200_000)
    for _ in range(10):
        pair.world.pass_(9)
        pair.left.take(10_000)
    assert pair.ends == []
    pair.world.pass_(21)
    assert pair.over().why == IDLE


@pytest.mark.parametrize("broken", ["left", "right"])
def test_what_broke_does_not_look_like_an_end(broken: str) -> None:
    pair = Pair()
    breaks, other = (pair.left, pair.right) if broken == "left" else (pair.right, pair.left)
    breaks.say(b"half of i")
    breaks.break_()
    pair.world.run()
    assert not other.lost, "what came before is delivered"
    pair.take()
    assert (other.arrived, other.saw) == (b"half of i", "reset")
    assert pair.over().why == (LEFT_LOST if broken == "left" else RIGHT_LOST)
    assert isinstance(pair.over().error, ConnectionResetError)


def test_what_broke_waits_no_longer_than_a_goodbye_for_the_other() -> None:
    pair = Pair()
    pair.right.say(b"x" * 1000)
    pair.right.break_()
    pair.world.pass_(GOODBYE + 1)
    assert pair.over().why == RIGHT_LOST
    assert pair.left.lost


def test_a_reset_by_one_that_had_ended_is_an_ordinary_end() -> None:
    """A server that closes first resets what the client still sends."""
    pair = Pair()
    pair.right.say(b"bye")
    pair.right.say(None)
    pair.take()
    pair.left.say(b"QUIT")
    pair.right.break_()
    pair.take()
    assert pair.over().why == ENDED


def test_the_last_bytes_have_a_goodbye_that_progress_extends() -> None:
    pair = Pair()
    pair.right.say(b"x" * 60_000)
    pair.right.say(None)
    pair.left.say(None)
    for _ in range(3):
        pair.world.pass_(GOODBYE - 1)
        pair.left.take(10_000)
    assert pair.ends == []
    pair.world.pass_(3 * GOODBYE)
    assert pair.over().why == STUCK
    assert pair.left.saw == "reset"


@pytest.mark.parametrize("waits", [b"", b"x" * 100_000])
def test_abort_is_over_before_it_returns(waits: bytes) -> None:
    pair = Pair()
    pair.left.say(waits)
    pair.tunnel.abort()
    assert pair.over().why == ABORTED
    pair.tunnel.abort()
    pair.take()
    pair.world.pass_(1000)
    assert len(pair.ends) == 1
    assert (pair.left.saw, pair.right.saw) == ("reset", "reset")


@pytest.mark.parametrize("which", ["left", "right", "both"])
async def test_a_connection_that_was_gone_before(which: str) -> None:
    import asyncio

    world = World()
    left, right = Transport(world), Transport(world)
    for name, transport in (("left", left), ("right", right)):
        transport.set_protocol(asyncio.Protocol())
        if which in (name, "both"):
            transport.break_()
    ends: list[TunnelEnd] = []
    Tunnel.join(left, right, ended=ends.append, watch=world.watch, clock=world.clock, to_left=b"hello", to_right=b"hi")
    assert ends == [], "never before join returns"
    for _ in range(3):
        await asyncio.sleep(0)
        for transport in (left, right):
            transport.take(EVERYTHING)
        world.run()
    assert [end.why for end in ends] == [ENDED]
    assert left.lost
    assert right.lost

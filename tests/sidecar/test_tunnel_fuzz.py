"""Invariant: whatever two ends do, in whatever order, each byte arrives once and in order or not at all, what waits is
bounded, an end that looks whole was whole, and `ended` is told exactly once, with both connections closed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from meshsdk_sidecar.proxy.tunnel import HIGH_WATER
from tests.sidecar.test_tunnel import Pair
from tests.sidecar.transports import Transport

MOST = 40_000
SIDES = st.sampled_from(["left", "right"])
TEXT = bytes(i % 251 for i in range(MOST + 251))


class Story:
    """What two ends do, one step after the other."""

    def __init__(self) -> None:
        self.pair = Pair(idle=40)
        self.said = {"left": bytearray(), "right": bytearray()}
        self.finished: set[str] = set()
        self.meddled = False

    def step(self, what: str, side: str, amount: int) -> None:
        getattr(self, what)(side, getattr(self.pair, side), amount)
        assert len(self.pair.ends) <= 1

    def say(self, side: str, here: Transport, amount: int) -> None:
        if side not in self.finished:
            begin = len(self.said[side]) % 251
            data = TEXT[begin : begin + amount]
            self.said[side] += data
            here.say(data)

    def end(self, side: str, here: Transport, amount: int) -> None:
        if side not in self.finished:
            self.finished.add(side)
            here.say(None)

    def take(self, side: str, here: Transport, amount: int) -> None:
        here.take(amount)

    def break_(self, side: str, here: Transport, amount: int) -> None:
        if not here.lost:
            self.finished.add(side)
            self.meddled = True
            here.break_()

    def pass_(self, side: str, here: Transport, amount: int) -> None:
        self.pair.world.pass_(amount // 1000)

    def abort(self, side: str, here: Transport, amount: int) -> None:
        self.meddled = True
        self.pair.tunnel.abort()

    def run(self, side: str, here: Transport, amount: int) -> None:
        self.pair.world.run()


STEPS = st.tuples(
    st.sampled_from(["say", "say", "take", "end", "break_", "pass_", "abort", "run"]), SIDES, st.integers(1, MOST)
)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEPS, max_size=25))
def test_whatever_they_do(steps: list[tuple[str, str, int]]) -> None:
    story = Story()
    pair = story.pair
    for step in steps:
        story.step(*step)
    for _ in range(25):
        pair.take()
    if not story.meddled and story.finished == {"left", "right"}:
        assert pair.ends, "both have ended, and the tunnel has not"
    pair.world.pass_(500)
    assert len(pair.ends) == 1
    assert pair.left.lost
    assert pair.right.lost
    for side, other in ((pair.left, "right"), (pair.right, "left")):
        assert story.said[other].startswith(side.arrived)
        assert side.most <= HIGH_WATER + MOST
        if side.saw == "eof":
            assert side.arrived == story.said[other]
            assert other in story.finished

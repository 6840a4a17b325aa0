"""A sink that raises is told of once and breaks nothing."""

from __future__ import annotations

import pytest

from meshsdk.telemetry.sinks import Fanout


def test_every_sink_hears_every_event_in_order():
    heard: list[tuple[str, int]] = []
    tell: Fanout[int] = Fanout(lambda event: heard.append(("a", event)), lambda event: heard.append(("b", event)))
    tell(1)
    tell(2)
    assert heard == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_a_sink_hears_only_what_it_asked_for():
    class Choosy:
        hears = (int, str)

        def __init__(self) -> None:
            self.heard: list[object] = []

        def __call__(self, event: object) -> None:
            self.heard.append(event)

    choosy, heard = Choosy(), list[object]()
    tell: Fanout[object] = Fanout(choosy, heard.append)
    for event in (1, 2.0, "three", True, None, 4):
        tell(event)
    assert choosy.heard == [1, "three", True, 4]
    assert heard == [1, 2.0, "three", True, None, 4]


def test_nobody_listening_is_no_error():
    tell: Fanout[int] = Fanout()
    tell(1)
    tell(2)


def test_a_raising_sink_is_logged_once_and_heard_again(caplog: pytest.LogCaptureFixture):
    heard: list[int] = []

    def broken(event: int) -> None:
        heard.append(event)
        raise ValueError("no room")

    tell: Fanout[int] = Fanout(broken, heard.append)
    tell(1)
    tell(2)
    assert heard == [1, 1, 2, 2]
    assert len(caplog.records) == 1
    assert "broken" in caplog.text
    assert "no room" in caplog.text


def test_a_sink_cannot_swallow_the_end_of_the_process():
    def stop(event: int) -> None:
        raise KeyboardInterrupt(event)

    tell: Fanout[int] = Fanout(stop)
    with pytest.raises(KeyboardInterrupt):
        tell(1)

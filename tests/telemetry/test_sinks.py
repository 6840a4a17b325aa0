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

"""The request being served bounds its own work, and only that."""

from __future__ import annotations

from meshsdk.telemetry.context import Inbound, current, remaining_deadline


def test_nothing_bounds_work_outside_a_request():
    assert current.get() is None
    assert remaining_deadline() is None


def test_a_request_bounds_until_it_ended():
    inbound = Inbound(deadline=12.5)
    token = current.set(inbound)
    try:
        assert remaining_deadline() == 12.5
        inbound.ended = True
        assert remaining_deadline() is None
        assert current.get() is inbound
    finally:
        current.reset(token)

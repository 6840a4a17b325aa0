"""Certificates are renewed and the CA is rotated under load: no call fails, and connections show the new ones."""

from __future__ import annotations

import asyncio

from benchmarks import rotation
from benchmarks.rotation import LIFETIME, OWN


async def test_no_call_fails() -> None:
    """The benchmark's two runs, short, rare and side by side."""
    rotated, renewed = await asyncio.gather(
        rotation.on_consul(seconds=4.0, rate=50.0, rotations=1), rotation.on_dev_agent(seconds=5.5, rate=50.0)
    )
    assert not rotated.failed, (rotated.failed, rotated.logs)
    assert not renewed.failed, (renewed.failed, renewed.logs)
    assert (rotated.calls, renewed.calls) == (200, 275)

    # A newcomer of the new root was believed by services whose own certificates are of the former one.
    ((_, root),) = rotated.rotations
    assert root not in {rotated.of(owner)[0].root for owner in (OWN, "checkout", "payments")}

    assert len(renewed.of(OWN)) >= 2, "renewed after at most nine tenths of its life"
    assert renewed.lag < 1.0
    assert renewed.oldest(LIFETIME) <= 2 * LIFETIME

"""A sidecar and an app are restarted under load: no call fails. The benchmark runs the same for longer."""

from __future__ import annotations

import pytest

from benchmarks import rolling_sidecars
from benchmarks.rolling_sidecars import fleet, roll


@pytest.mark.timeout(120)
async def test_no_call_fails(tmp_path, dev_agent, monkeypatch):
    monkeypatch.setattr(rolling_sidecars, "AWAY", 0.1)
    monkeypatch.setattr(rolling_sidecars, "HEALTH", rolling_sidecars.HEALTH | {"interval": "100ms"})
    with fleet(dev_agent.url, tmp_path, together=False, size=2, notice=1.2) as found:
        outcome = await roll(found, ["sidecar", "app"], 20.0, lambda so_far: so_far.restarts == 2)
        logs = found.logs()
    assert not outcome.failed, f"{outcome.failed}\n{logs}"
    assert outcome.calls > 40
    assert outcome.servers.total() == outcome.calls
    assert min(outcome.servers.values()) > 5
    assert len(outcome.servers) == 2
    assert "Traceback" not in logs, logs

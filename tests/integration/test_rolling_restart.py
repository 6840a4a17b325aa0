"""Instances restarted one after the other under load: no call fails."""

from __future__ import annotations

import pytest

from benchmarks import rolling_restart


@pytest.mark.timeout(150)
async def test_no_call_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """SIGTERM with GET and POST, then SIGKILL with GET; the benchmark runs the same for longer."""
    code = await rolling_restart.main(seconds=8.0, rate=50.0)
    printed = capsys.readouterr().out
    assert code == 0, printed
    lines = [line for line in printed.splitlines() if line.startswith("SIG")]
    assert [line.split(":")[0] for line in lines] == ["SIGTERM", "SIGKILL"]
    for line in lines:
        restarts = int(line.split(" calls, ")[1].split()[0])
        assert "400 calls" in line
        assert " 0 failed" in line
        assert restarts >= 1, line
        assert "gunicorn" in line, line
        assert "uvicorn" in line, line

"""What a service says of its own accord: nothing while all is well, and of a loss of Consul its begin and its end.

A service that calls others and is called notices twice: it cannot ask, and it cannot say that it lives.
"""

from __future__ import annotations

import pytest

from tests.integration.programs import ConsulView, Program, Starter, until
from tests.real_consul import RealConsul


@pytest.fixture
def consul(own_consul: RealConsul) -> ConsulView:
    return ConsulView(own_consul.url)


@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn"])
def test_healthy_run_is_silent(starter: Starter, service: str, kind: str) -> None:
    """Started, called, calling, and ended: not a line."""
    back = (
        starter.gunicorn(f"{service}-back", "--threads", "2")
        if kind == "gunicorn"
        else starter.uvicorn(f"{service}-back")
    )
    front = starter.uvicorn(f"{service}-front", BACK=f"{service}-back")
    starter.wait()
    path = "/through/await" if kind == "gunicorn" else "/who"
    for _ in range(20):
        assert front.text(path)[0] == 200
    assert front.end() in {0, -15}
    assert back.end() in {0, -15}
    assert front.log == ""
    assert back.log == ""


def test_loss_and_return_of_consul_are_told_once(starter: Starter, own_consul: RealConsul, service: str) -> None:
    starter.gunicorn(f"{service}-back", "--threads", "2")
    front = starter.uvicorn(f"{service}-front", BACK=f"{service}-back", MESH_TTL="3")
    starter.wait()
    assert front.text("/through/await")[0] == 200
    own_consul.stop()
    until(lambda: told(front, "cannot be told"), 15, lambda: front.log)
    until(lambda: told(front, "cannot be asked"), 15, lambda: front.log)
    calls(front, 40)
    own_consul.start()
    until(lambda: starter.consul.passing(f"{service}-front"), 20, lambda: front.log)
    until(lambda: told(front, "Consul is back") and told(front, "can be told again"), 20, lambda: front.log)
    calls(front, 40)
    assert len(told(front, "cannot be asked")) == len(told(front, "is back")) == 1, front.log
    assert len(told(front, "cannot be told")) == len(told(front, "can be told again")) == 1, front.log
    # A Consul that starts anew has another CA: that its certificates are refused until ours expires is no repetition.
    identity = [line for line in told(front, "identity can") if line.startswith("identity can")]
    assert len(identity) == len(set(identity)) <= 3, front.log
    assert len(front.log.splitlines()) == 4 + len(identity), front.log
    assert own_consul.url in told(front, "cannot be asked")[0]


def calls(front: Program, count: int) -> None:
    for _ in range(count):
        assert front.text("/through/await")[0] == 200


def told(program: Program, words: str) -> list[str]:
    return [line for line in program.log.splitlines() if words in line]

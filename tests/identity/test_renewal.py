"""The background half: providers run, are run again when they break, and run anew in a forked child."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from meshsdk.discovery.background import Background
from meshsdk.identity import Aged, Expired, Identity, Issued, Trouble, holder, renewal
from tests.identity.certificates import Pair, issue, material
from tests.identity.conftest import Scripted, Silent


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_first_material_is_waited_for(background: Background, ca: Pair):
    identity = Identity(Scripted(material("web", ca)), background)
    assert identity.wait_ready(10)
    assert identity.state.name == "valid"
    assert identity.wait_ready(0)
    identity.close()
    assert identity.material is not None, "what is in force stays"


async def test_the_first_material_is_waited_for_on_a_loop(background: Background, ca: Pair):
    identity = Identity(Scripted(Trouble("away", "x"), material("web", ca)), background)
    assert await identity.await_ready(10)
    await identity.aclose()


async def test_trouble_is_an_answer_too(background: Background):
    identity = Identity(Scripted(Trouble("away", "x")), background)
    began = time.monotonic()
    await identity.await_answer(30)
    identity.wait_answer(30)
    assert identity.failures == {"away": 1}
    assert time.monotonic() - began < 10
    await identity.aclose()


async def test_nothing_comes(background: Background):
    identity = Identity(Silent(), background)
    assert not identity.wait_ready(0.01)
    assert not await identity.await_ready(0.01)
    waiting = asyncio.create_task(identity.await_ready(10))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await identity.aclose()


def test_a_loop_that_is_gone_does_not_hold_up_the_others(background: Background, ca: Pair):
    identity = Identity(Silent(), background)
    assert asyncio.run(identity.await_ready(0.01)) is False
    identity.publish(material("web", ca))
    assert identity.wait_ready(10)
    identity.close()


def test_who_waits_on_the_background_itself_does_not_wait(background: Background):
    identity = Identity(Silent(), background)

    async def ask() -> bool:
        return identity.wait_ready(30)

    assert background.submit(ask).result(5) is False
    identity.close()


def test_closing(background: Background, ca: Pair):
    provider = Scripted(material("web", ca))
    identity = Identity(provider, background)
    identity.close()
    identity.start()
    assert provider.runs == 0
    other = Identity(provider, background)
    assert other.wait_ready(10)
    other.close()
    other.close()
    other.client_security("api")
    assert provider.runs == 1


def test_a_provider_that_breaks_is_run_again(
    background: Background, ca: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(renewal, "RESTART_PAUSE", 0.01)
    provider = Scripted(material("web", ca), RuntimeError("a mistake"))
    identity = Identity(provider, background)
    identity.start()
    until(lambda: provider.runs > 2)
    assert identity.state.name == "valid"
    assert identity.renewals == 1
    identity.close()
    assert "a provider of identities broke off" in caplog.text


def test_a_provider_that_ends_is_run_again(
    background: Background, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(renewal, "RESTART_PAUSE", 0.01)

    class Ending(Silent):
        runs = 0

        async def run(self, publish: object) -> None:
            self.runs += 1

    provider = Ending()
    identity = Identity(provider, background)
    identity.start()
    until(lambda: provider.runs > 2)
    identity.close()
    assert "a provider of identities ended by itself" in caplog.text


def test_without_descriptors_it_is_tried_again_after_a_pause(
    background: Background, ca: Pair, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(holder, "RETRY", 0.05)
    load, tried = ssl.SSLContext.load_cert_chain, []

    def full(context: ssl.SSLContext, *args: Any) -> None:
        tried.append(time.monotonic())
        if len(tried) <= 5:
            raise OSError(24, "Too many open files")
        load(context, *args)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", full)
    identity = Identity(Scripted(material("web", ca)), background)
    assert identity.wait_ready(10)
    identity.close()
    assert tried[5] - tried[2] >= 0.14, "being told of it cuts the pauses before short, once"


def test_the_end_comes_by_itself(background: Background, ca: Pair):
    """At a wall clock shifted to the certificate's last half second."""
    made = material("web", ca)
    shift = made.not_after - timedelta(seconds=0.5) - datetime.now(UTC)
    told: list[object] = []
    identity = Identity(Silent(), background, now=lambda: datetime.now(UTC) + shift)
    identity.listen(told.append)
    identity.start()

    async def publish() -> None:
        identity.publish(made)

    background.submit(publish).result(5)
    until(lambda: told == [Issued(made, first=True), Expired(made)])
    assert identity.state.name == "expired"
    identity.close()


def test_an_age_within_the_lifetime_comes_by_itself(background: Background, ca: Pair):
    made = material("web", ca)
    shift = made.used_up(0.9) - timedelta(seconds=0.2) - datetime.now(UTC)
    told: list[object] = []
    identity = Identity(Scripted(made), background, now=lambda: datetime.now(UTC) + shift)
    identity.listen(told.append)
    identity.start()
    until(lambda: any(isinstance(event, Aged) and event.share == 0.9 for event in told))
    identity.close()


def in_a_child(ask: Callable[[], object]) -> object:
    """What `ask` returns in a forked child, which then ends at once."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = ask()
        except BaseException as error:
            answer = repr(error)
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = json.loads(pipe.read())
    assert os.waitpid(pid, 0)[1] == 0
    return answer


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_runs_the_provider_itself(background: Background, ca: Pair, caplog: pytest.LogCaptureFixture):
    first, second = material("web", ca), material("web", issue("second"))
    provider = Scripted(Trouble("away", "x"), first)
    identity = Identity(provider, background)
    assert identity.wait_ready(10)

    def ask() -> list[object]:
        counts = [identity.renewals, dict(identity.failures), provider.runs]
        provider.found = (second,)
        held = identity._in_force  # whoever asks for `material` starts the provider
        inherited = held is not None and held.material == first
        identity.client_security("api")
        until(lambda: identity.renewals == 1)
        assert identity.material == second
        # By name: what other tests left of OpenTelemetry's exporters starts threads of its own in a child.
        ours = [thread.name for thread in threading.enumerate()].count("test identity")
        return [inherited, counts, provider.runs, identity.renewals, ours]

    assert in_a_child(ask) == [True, [0, {}, 1], 2, 1, 1]
    assert identity.material == first
    assert (identity.renewals, identity.failures) == (1, {"away": 1})
    identity.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_before_the_first_material_waits_for_its_own(background: Background, ca: Pair):
    provider = Scripted()
    identity = Identity(provider, background)
    identity.start()

    def ask() -> bool:
        provider.found = (material("web", ca),)
        return identity.wait_ready(10)

    assert in_a_child(ask) is True
    assert not identity.wait_ready(0)
    identity.close()


def test_the_log_says_what_happens(caplog: pytest.LogCaptureFixture, background: Background, ca: Pair):
    caplog.set_level(logging.INFO, "meshsdk.identity")
    identity = Identity(Scripted(material("web", ca), Trouble("away", "Consul hides"), material("web", ca)), background)
    identity.start()
    until(lambda: identity.renewals == 2)
    identity.close()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("identity in force: spiffe://test.consul/ns/default/dc/dc1/svc/web, serial ")
    assert lines[1] == "identity cannot be renewed: Consul hides"
    assert lines[2].startswith("identity renewed: spiffe://")

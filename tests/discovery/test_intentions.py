"""Intentions for our own service, followed in the dev agent: last known while it is away, none before its answer."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshsdk.core.request import Request
from meshsdk.discovery.background import Background
from meshsdk.discovery.intentions import OwnIntentions
from meshsdk_registry import Consul
from meshsdk_registry.agent import AgentThread, running_agent
from tests.real_consul import RealConsul

PEER = "spiffe://d.consul/ns/default/dc/dc1/svc/checkout"


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background("test")
    yield background
    background.stop()


def following(
    agent: AgentThread | RealConsul, background: Background, token: str | None = None, **options: Any
) -> OwnIntentions:
    return OwnIntentions(
        lambda: Consul(agent.url, token=token), "shop", background=background, **{"first_wait": 10.0, **options}
    )


def allows(intentions: OwnIntentions, peer: str | None = PEER) -> bool:
    current = intentions.current()
    return current is None or current.decide(Request(peer, "d.consul", "GET", "/", lambda _: ())).allowed


async def until(what: Any) -> None:
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_changes_are_followed_and_outlive_consul(dev_agent: AgentThread, background: Background) -> None:
    intentions = following(dev_agent, background)
    await intentions.await_known(5)
    assert intentions.known()
    assert intentions.current() is None
    async with Consul(dev_agent.url) as consul:
        await consul.put_intention("checkout", "other", "deny")
        await consul.put_intention("checkout", "shop", "deny")
        await until(lambda: not allows(intentions))
        assert allows(intentions, PEER.replace("checkout", "billing"))
        dev_agent.stop()
        await asyncio.sleep(0.1)
        assert not allows(intentions)
        dev_agent.start(empty=True)
        await until(lambda: allows(intentions))
    intentions.close()


async def test_default_deny_holds_from_the_first_request(dev_agent: AgentThread, background: Background) -> None:
    intentions = following(dev_agent, background, default_allow=False)
    assert not allows(intentions)
    await intentions.await_known(5)
    assert not allows(intentions)
    async with Consul(dev_agent.url) as consul:
        await consul.put_intention("checkout", "shop", "allow")
    await until(lambda: allows(intentions))
    assert not allows(intentions, None)
    intentions.close()


async def test_consuls_own_default_holds_unless_one_is_set(background: Background) -> None:
    with running_agent(intention_default="deny") as agent:
        asked, told = following(agent, background), following(agent, background, default_allow=True)
        for intentions in (asked, told):
            await intentions.await_known(5)
            assert intentions.known()
        assert not allows(asked)
        assert allows(told)
        async with Consul(agent.url) as consul:
            await consul.put_intention("checkout", "shop", "allow")
        await until(lambda: allows(asked))
        assert not allows(asked, None)
        asked.close()
        told.close()


async def test_a_consul_that_comes_back_with_another_default_is_obeyed(background: Background) -> None:
    with running_agent() as agent:
        intentions = following(agent, background)
        await intentions.await_known(5)
        assert allows(intentions)
        agent.stop()
        agent._agent._intention_default = "deny"
        agent.start(empty=True)
        await until(lambda: not allows(intentions))
        intentions.close()


@pytest.mark.parametrize(("token", "allowed", "told"), [("root", False, 0), (None, True, 1)])
async def test_a_real_consul_with_acls(
    background: Background, caplog: pytest.LogCaptureFixture, token: str | None, allowed: bool, told: int
) -> None:
    """Without `agent:read` the agent does not say, and the log tells once what to do."""
    acl = 'acl { enabled = true default_policy = "deny" tokens { master = "root" } }'
    with RealConsul("-hcl", acl) as server, caplog.at_level(logging.WARNING, "meshsdk.discovery"):
        intentions = following(server, background, token)
        await intentions.await_known(5)
        assert intentions.known()
        assert allows(intentions) is allowed
        intentions.close()
    assert caplog.text.count("set MESH_INTENTION_DEFAULT") == told
    assert caplog.text.count("'allow' holds") == told


async def test_what_was_known_last_holds_at_a_start_without_consul(background: Background, tmp_path: Path) -> None:
    with running_agent(intention_default="deny") as agent:
        async with Consul(agent.url) as consul:
            await consul.put_intention("checkout", "shop", "allow")
            await consul.put_intention("checkout", "other", "deny")
        first = following(agent, background, state_dir=tmp_path / "state")
        await first.await_known(5)
        file = tmp_path / "state" / "shop.intentions.json"
        await until(file.exists)
        first.close()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        agent.stop()

        second = following(agent, background, state_dir=tmp_path / "state")
        began = time.monotonic()
        await second.await_known(5)
        assert time.monotonic() - began < 1.5, "it was refused, and waits no longer"
        assert second.known()
        assert allows(second)
        assert not allows(second, PEER.replace("checkout", "billing")), "the default is remembered, too"

        agent.start()
        async with Consul(agent.url) as consul:
            await consul.put_intention("billing", "shop", "allow")
        await until(lambda: allows(second, PEER.replace("checkout", "billing")))
        second.close()


async def test_nothing_is_remembered_before_the_default_is_known(
    background: Background, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries without it would say "allow" at the next start, where Consul says "deny"."""
    asked, tell = threading.Event(), threading.Event()
    agent_info = Consul.agent_info

    async def late(consul: Consul) -> Any:
        asked.set()
        await asyncio.to_thread(tell.wait, 10)
        return await agent_info(consul)

    monkeypatch.setattr(Consul, "agent_info", late)
    monkeypatch.setattr("meshsdk.discovery.keeper.PAUSE", 0.01)
    file = tmp_path / "state" / "shop.intentions.json"
    with running_agent(intention_default="deny") as agent:
        async with Consul(agent.url) as consul:
            await consul.put_intention("checkout", "shop", "allow")
        intentions = following(agent, background, state_dir=tmp_path / "state")
        await until(lambda: intentions.current() is not None)
        await until(asked.is_set)
        await asyncio.sleep(0.1)
        assert not file.exists()
        tell.set()
        await until(file.exists)
        assert json.loads(file.read_text())["intentions"]["default"] == "deny"
        intentions.close()


async def test_a_damaged_memory_is_none(background: Background, tmp_path: Path, caplog: Any, unused_port: int) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "shop.intentions.json").write_text('{"form": 1, "intentions": {"entries": [{}]}}')
    intentions = OwnIntentions(
        lambda: Consul(f"http://127.0.0.1:{unused_port}"), "shop", background=background, state_dir=tmp_path / "state"
    )
    await intentions.await_known(5)
    assert not intentions.known()
    assert allows(intentions)
    assert "shop.intentions.json is not used" in caplog.text
    intentions.close()


async def test_a_silent_consul_is_waited_for_as_long_as_the_setting_says(background: Background) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        intentions = OwnIntentions(lambda: Consul(url), "shop", background=background, first_wait=0.3)
        began = time.monotonic()
        await intentions.await_known(5)
        assert 0.25 < time.monotonic() - began < 2
        assert not intentions.known()
        intentions.close()


async def test_a_client_that_cannot_be_made_is_told_and_tried_again(
    dev_agent: AgentThread, background: Background, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshsdk.discovery.intentions.PAUSE", 0.02)
    made: list[int] = []

    def consul() -> Consul:
        made.append(1)
        if len(made) == 1:
            raise OSError("no such token file")
        return Consul(dev_agent.url)

    intentions = OwnIntentions(consul, "shop", background=background)
    await intentions.await_known(5)
    await until(intentions.known)
    assert caplog.text.count("no such token file") == 1
    intentions.close()

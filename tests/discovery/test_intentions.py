"""Intentions for our own service, followed in the dev agent: last known while it is away, none before its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from meshsdk.core.request import Request
from meshsdk.discovery.background import Background
from meshsdk.discovery.intentions import OwnIntentions
from meshsdk_registry import Consul
from meshsdk_registry.agent import AgentThread

PEER = "spiffe://d.consul/ns/default/dc/dc1/svc/checkout"


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background("test")
    yield background
    background.stop()


def following(agent: AgentThread, background: Background, *, default_allow: bool = True) -> OwnIntentions:
    return OwnIntentions(lambda: Consul(agent.url), "shop", background=background, default_allow=default_allow)


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

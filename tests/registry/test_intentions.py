"""Intentions on the dev agent and a real Consul: both must agree, whichever of Consul's two APIs they have."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import aclosing

import httpx
import pytest

from meshsdk_registry import (
    Changed,
    Consul,
    Denied,
    HeaderMatch,
    Permission,
    Rejected,
    connect_json,
    watch_intentions,
)

SOON = 2.0
"""Seconds a wake-up may take on a busy machine; it takes milliseconds."""


async def about(consul: Consul, name: str):
    """The intentions whose destination is this test's."""
    return [one for one in (await consul.intentions()).value if one.destination == name]


async def test_written_changed_and_deleted(consul, name):
    await consul.put_intention("web", name, "allow", description="orders pay")
    (made,) = await about(consul, name)
    assert (made.source, made.destination, made.action, made.precedence) == ("web", name, "allow", 9)
    assert (made.description, made.source_type, made.permissions, made.foreign) == ("orders pay", "consul", (), "")
    await consul.put_intention("web", name, "deny")
    (changed,) = await about(consul, name)
    assert (changed.id, changed.action, changed.description) == (made.id, "deny", "orders pay")
    assert changed.modify_index > made.modify_index
    assert await consul.delete_intention("web", name)
    assert not await consul.delete_intention("web", name)
    assert await about(consul, name) == []


async def test_what_decides_first_comes_first(consul, name):
    await consul.put_intention("*", name, "deny")
    await consul.put_intention("b", name, "allow")
    await consul.put_intention("a", name, "allow")
    shown = [(one.source, one.precedence) for one in await about(consul, name)]
    assert shown == [("a", 9), ("b", 9), ("*", 8)]
    await consul.put_intention(name, "*", "allow")
    (wild,) = [one for one in (await consul.intentions()).value if one.source == name]
    assert wild.precedence == 6
    assert await consul.delete_intention(name, "*")


async def test_a_change_wakes_the_watch(consul, name):
    async with aclosing(watch_intentions(consul)) as events:
        await anext(events)
        for action in ("allow", "deny"):
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.wait({waiting}, timeout=0.1)
            await consul.put_intention("web", name, action)
            event = await asyncio.wait_for(waiting, SOON)
            assert isinstance(event, Changed)
            assert [one.action for one in event.answer.value if one.destination == name] == [action]


async def test_two_writers_at_once_both_have_their_way(server, name):
    async with Consul(server.url) as one, Consul(server.url) as other:
        for _ in range(10):
            await asyncio.gather(one.put_intention("web", name, "allow"), other.put_intention("web", name, "deny"))
            (last,) = await about(one, name)
            assert last.action in {"allow", "deny"}
            assert sorted(
                await asyncio.gather(one.delete_intention("web", name), other.delete_intention("web", name))
            ) in ([False, True], [True, True])  # names alone do not tell who of two deleted


@pytest.mark.parametrize("pair", [("", "x"), ("a b", "x"), ("x", "a/b"), ("we*", "x")])
async def test_names_that_cannot_be_services_are_refused_before_asking(consul, pair):
    with pytest.raises(ValueError, match="service name"):
        await consul.put_intention(*pair, "allow")
    with pytest.raises(ValueError, match="service name"):
        await consul.delete_intention(*pair)


async def test_permissions_need_consul_1_9(real_consul, name):
    async with Consul(real_consul.url) as consul:
        with pytest.raises(Rejected, match=r"older than 1\.9\): write allow or deny"):
            await consul.put_intention("web", name, "", [Permission("deny", path_prefix="/admin")])


async def test_permissions_come_back_as_they_were_written(dev_agent, name):
    rules = (
        Permission("deny", path_prefix="/admin", methods=("POST", "PUT")),
        Permission("allow", path_exact="/v1/pay", headers=(HeaderMatch("x-tenant", exact="a"),)),
        Permission("allow", headers=(HeaderMatch("x-a", present=True, invert=True),)),
        Permission("deny", path_regex="/v[0-9]+/.*"),
    )
    async with Consul(dev_agent.url) as consul:
        await consul.put_intention("web", name, "", rules)
        (made,) = await about(consul, name)
        assert (made.action, made.permissions) == ("", rules)
        await consul.put_intention("web", name, "allow")
        (made,) = await about(consul, name)
        assert (made.action, made.permissions) == ("allow", ())


async def test_what_others_noted_about_an_intention_stays(consul, name):
    made = {"SourceName": "web", "DestinationName": name, "Action": "allow", "Meta": {"ticket": "7"}}
    await consul.raw("POST", "/v1/connect/intentions", data=json.dumps(made))
    await consul.put_intention("web", name, "deny")
    (now,) = await about(consul, name)
    assert (now.action, now.meta) == ("deny", {"ticket": "7"})


def test_meta_is_not_written_by_names(dev_agent):
    """Of Consul 1.9 and later: it belongs to the destination's config entry."""
    url = f"{dev_agent.url}/v1/connect/intentions/exact?source=a&destination=b"
    answer = httpx.put(url, json={"Action": "deny", "Meta": {"a": "b"}}, trust_env=False)
    assert (answer.status_code, "Meta must not be specified" in answer.text) == (500, True)


@pytest.mark.parametrize("status", [403, 500])
async def test_a_consul_that_does_not_say_which_api_it_has_is_asked_again(monkeypatch, dev_agent, status):
    from meshsdk_registry.agent import connect_api
    from meshsdk_registry.agent.bodies import Refused

    def refuse(_):
        raise Refused(status, "Permission denied")

    async with Consul(dev_agent.url) as consul:
        with monkeypatch.context() as patch:
            patch.setattr(connect_api, "_shown", refuse)
            with pytest.raises(Denied):
                await consul.put_intention("a", "b", "allow")
        await consul.put_intention("a", "b", "allow")
        assert [one.action for one in await about(consul, "b")] == ["allow"]


REFUSED = [
    ("allow", [Permission("allow", path_exact="/")], "beside permissions"),
    ("", [], "write 'allow' or 'deny', or give permissions"),
    ("permit", [], "write 'allow' or 'deny'"),
    ("", [Permission("", path_exact="/")], "of a permission"),
    ("", [Permission("allow")], "without condition"),
    ("", [Permission("allow", path_exact="/a", path_prefix="/b")], "one path condition"),
    ("", [Permission("allow", headers=(HeaderMatch("x"),))], "write one of present"),
    ("", [Permission("allow", headers=(HeaderMatch("x", exact="a", prefix="a"),))], "write one of present"),
    ("", [Permission("allow", path_exact="/", unknown=("JWT",))], "a permission with JWT"),
]


@pytest.mark.parametrize(("action", "permissions", "words"), REFUSED, ids=[words for *_, words in REFUSED])
def test_what_consul_would_not_take_is_refused_before_sending(action, permissions, words):
    with pytest.raises(ValueError, match=words):
        connect_json.intention_body(action, permissions)


def test_the_same_writes_by_id_lead_to_the_same_intentions(real_consul, dev_agent):
    """Random writes of the API that 1.8.7 has, with names of this test: each answer and each list must be equal."""
    rng = random.Random(48)
    with (
        httpx.Client(base_url=real_consul.url, trust_env=False) as real,
        httpx.Client(base_url=dev_agent.url, trust_env=False) as ours,
    ):
        ids: list[dict[str, str]] = [{}, {}]  # the same intention has another id on each
        for number in range(150):
            ends = {
                "SourceName": rng.choice(["a", "b", "*", "a*", ""]),
                "DestinationName": f"same-{rng.choice('xy')}",
            }
            body = {**ends, "Action": rng.choice(["allow", "deny", "deny", "no"]), "Description": str(number)}
            verb, target = rng.choice(["POST", "POST", "PUT", "DELETE", "match", "authorize"]), rng.choice("abcdef")
            told = [_write(http, verb, target, body, known) for http, known in zip((real, ours), ids, strict=True)]
            assert told[0] == told[1], (verb, body)


def _write(http, verb, target, body, ids):
    key = ids.get(target, "00000000-0000-0000-0000-000000000000")
    if verb == "POST":
        answer = http.post("/v1/connect/intentions", json=body)
        if answer.status_code == 200:
            ids[f"{target} before {len(ids)}"] = key
            ids[target] = answer.json()["ID"]
    elif verb == "PUT":
        answer = http.put(f"/v1/connect/intentions/{key}", json=body)
    elif verb == "DELETE":
        answer = http.delete(f"/v1/connect/intentions/{key}")
    elif verb == "match":
        answer = http.get("/v1/connect/intentions/match", params={"by": "destination", "name": body["DestinationName"]})
    else:
        uri = "spiffe://any.consul/ns/default/dc/dc1/svc/" + (body["SourceName"] or "a").strip("*")
        answer = http.post(
            "/v1/agent/connect/authorize", json={"Target": body["DestinationName"], "ClientCertURI": uri}
        )
    listed = [one for one in http.get("/v1/connect/intentions").json() if "same-" in one["DestinationName"]]
    told = answer.json() if answer.status_code == 200 else " ".join(answer.text.split())
    return answer.status_code, _plain(told, ids), _plain(listed, ids)


def _plain(value, ids):
    """Without what differs by nature: ids, indexes, times, and the hash over them."""
    if isinstance(value, dict):
        own = {"CreateIndex", "ModifyIndex", "CreatedAt", "UpdatedAt", "Hash"}
        return {key: _plain(one, ids) for key, one in value.items() if key not in own}
    if isinstance(value, list):
        return [_plain(one, ids) for one in value]
    if isinstance(value, str):
        for name, one in ids.items():
            value = value.replace(one, f"<{name}>")
    return value

"""Invariant: whatever bytes stand in a file, `read` returns a memory fit for calls or raises ValueError."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsdk.core.model import Endpoint
from meshsdk.discovery.memory import KeptDocument, KeptIntentions, Memory, dump, read
from meshsdk_registry import HeaderMatch, Intention, Permission

texts = st.text(max_size=8)
found = st.builds(
    Endpoint,
    key=st.text(min_size=1, max_size=8),
    address=st.text(min_size=1, max_size=8),
    port=st.integers(1, 65535),
    weight=st.floats(min_value=0.5, max_value=100),
    zone=texts,
    healthy=st.booleans(),
    meta=st.dictionaries(texts, texts, max_size=2),
)
headers = st.builds(HeaderMatch, texts, st.booleans(), texts, invert=st.booleans())
permissions = st.builds(
    Permission,
    st.sampled_from(["allow", "deny"]),
    path_prefix=texts,
    headers=st.lists(headers, max_size=2).map(tuple),
    methods=st.lists(texts, max_size=2).map(tuple),
    unknown=st.lists(texts, max_size=1).map(tuple),
)
intentions = st.builds(
    Intention,
    texts,
    texts,
    texts,
    st.sampled_from(["allow", "deny", ""]),
    st.integers(0, 9),
    st.lists(permissions, max_size=2).map(tuple),
    meta=st.dictionaries(texts, texts, max_size=1),
    unknown=st.lists(texts, max_size=1).map(tuple),
)
kept_intentions = st.builds(
    KeptIntentions, st.lists(intentions, max_size=2).map(tuple), st.sampled_from(["", "allow", "deny"])
)
memories = st.builds(
    Memory,
    st.lists(found, max_size=3, unique_by=lambda e: e.key).map(tuple),
    st.dictionaries(texts, st.builds(KeptDocument, texts, st.integers(0, 2**63)), max_size=2),
    intentions=st.none() | kept_intentions,
)


def usable(memory: Memory) -> None:
    for endpoint in memory.endpoints:
        assert type(endpoint.address) is str
        assert endpoint.address
        assert 0 < endpoint.port < 65536
        assert 0 < endpoint.weight < float("inf")
        assert not endpoint.limbo
    assert all(type(kept.text) is str for kept in memory.documents.values())


@given(memories)
def test_what_was_written_is_read(memory):
    assert read(dump("web", "consul", memory), "web", "consul", 0.0) == memory


@given(st.binary() | st.text().map(str.encode) | st.just(b"[" * 100_000))
def test_any_bytes(content):
    with pytest.raises(ValueError, match=r"\S"):
        read(content, "web", "consul", 0.0)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


@given(memories, st.data())
def test_any_value_in_the_place_of_another(memory, data):
    content = json.loads(dump("web", "consul", memory))
    place = data.draw(st.sampled_from(sorted(content)))
    content[place] = data.draw(anything)
    if place == "endpoints" and memory.endpoints and data.draw(st.booleans()):
        fields = json.loads(dump("web", "consul", memory))["endpoints"]
        fields[0][data.draw(st.integers(0, 6))] = data.draw(anything)
        content[place] = fields
    with contextlib.suppress(ValueError):
        usable(read(json.dumps(content).encode(), "web", "consul", 0.0))


@pytest.mark.parametrize(
    ("service", "origin", "said"), [("other", "consul", "it is of 'web'"), ("web", "elsewhere", "not in 'elsewhere'")]
)
def test_of_another_service_or_consul(service, origin, said):
    with pytest.raises(ValueError, match=said):
        read(dump("web", "consul", Memory()), service, origin, 0.0)


def test_of_a_later_form():
    content = dump("web", "consul", Memory()).replace(b'"form":1', b'"form":2')
    with pytest.raises(ValueError, match="it has form 2, this version reads 1"):
        read(content, "web", "consul", 0.0)


PERMISSION = Permission("allow", path_prefix="/v1", headers=(HeaderMatch("x-a", exact="1"),), methods=("GET",))
INTENTION = Intention("id", "checkout", "shop", "", 9, (PERMISSION,), unknown=("JWT",))
FIELDS = [
    ["entries"],
    ["default"],
    ["entries", 0, "source"],
    ["entries", 0, "unknown"],
    ["entries", 0, "permissions"],
    ["entries", 0, "permissions", 0, "path_prefix"],
    ["entries", 0, "permissions", 0, "headers", 0, "exact"],
]


@pytest.mark.parametrize("change", ["left out", "of another kind", "with an unknown one beside it"])
@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_intentions_with_a_condition_lost_are_no_memory(path, change):
    """Whoever loses a condition of an allow lets more callers pass."""
    written = dump("shop.intentions", "consul", Memory(intentions=KeptIntentions((INTENTION,), "deny")))
    content = json.loads(written)
    *steps, last = path
    target = content["intentions"]
    for step in steps:
        target = target[step]
    if change == "left out":
        del target[last]
    elif change == "of another kind":
        target[last] = 7
    else:
        target["condition"] = "new"
    with pytest.raises(ValueError, match=r"\S"):
        read(json.dumps(content).encode(), "shop.intentions", "consul", 0.0)

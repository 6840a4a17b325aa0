"""Invariant: whatever bytes stand in KV, `parse` returns a Document or raises PolicyError with at least one mistake,
in bounded time; a document it returns makes a plan or is refused by `effective` with a reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsdk.errors import PolicyError
from meshsdk.policy.diff import flat
from meshsdk.policy.document import Document, parse
from meshsdk.policy.effective import dump, effective
from meshsdk.policy.reading import MAX_BYTES
from meshsdk.policy.sections import Sections

Made = TypeVar("Made")
KNOWN = sorted({step for path in flat(Sections.written_defaults()) for step in path.split(".")})
KEYS = [*KNOWN, "version", "from", "checkout", "routes", "hedge", "wibble", "<<", "1"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.sampled_from(["5s", "0", "250ms", "1h", "-1s", "reset", "503", "peak-ewma", "off", "all", ""]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
)
DOCUMENTS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6).map(lambda value: {"version": 1, **value})
DURATIONS = st.builds(lambda number, unit: f"{number}{unit}", st.integers(1, 100), st.sampled_from(["ms", "s", "m"]))


def judged(text: bytes | str, source: str = "mesh/policy/payments") -> Document | None:
    document = without_reason(lambda: parse(text, source))
    if document:
        without_reason(lambda: effective("checkout", "payments", None, document))
    return document


def without_reason(made: Callable[[], Made]) -> Made | None:
    """What is made, or None where it is refused; a refusal without a reason fails the test."""
    try:
        return made()
    except PolicyError as refused:
        reasons = refused.mistakes
    assert reasons
    assert all(reasons)
    return None


@given(st.binary(max_size=400) | st.text(max_size=400))
@settings(deadline=None)
def test_any_bytes(text):
    judged(text)


@given(st.text("{}[]:,-?!&*#|>'\"%@` \n\t01a~<", max_size=80).map("version: 1\n".__add__))
@settings(deadline=None)
def test_yaml_punctuation(text):
    judged(text)


@given(DOCUMENTS, st.sampled_from(["mesh/policy/payments", "mesh/policy/_mesh"]))
@settings(deadline=None, max_examples=60)
def test_any_values(value, source):
    judged(yaml.safe_dump(value, allow_unicode=True), source)
    judged(json.dumps(value), source)


@given(st.fixed_dictionaries({}, optional={key: DURATIONS for key in Sections.written_defaults()["timeouts"]}))
@settings(deadline=None)
def test_no_plan_has_an_attempt_longer_than_its_request(timeouts):
    document = judged(json.dumps({"version": 1, "timeouts": timeouts}))
    plan = document and without_reason(lambda: effective("", "payments", None, document))
    assert plan is None or plan.timeouts.connect <= plan.timeouts.attempt <= plan.timeouts.request


@given(st.fixed_dictionaries({}, optional={"open_for": DURATIONS}), st.integers(0, 100))
@settings(deadline=None)
def test_what_is_dumped_is_read_back(breaker, failures):
    text = json.dumps({"version": 1, "circuit_breaker": {**breaker, "consecutive_failures": failures}})
    plan = effective("", "payments", None, parse(text, "payments"))
    assert effective("", "payments", parse(json.dumps(dump(plan)), "_mesh", plan.version), None) == plan


@pytest.mark.parametrize(
    "hostile",
    [
        "[" * MAX_BYTES,
        '{"a":' * (MAX_BYTES // 5),
        "- " * (MAX_BYTES // 2),
        "? " * (MAX_BYTES // 2),
        "&a " * (MAX_BYTES // 3),
        "[" + "a," * (MAX_BYTES // 2 - 1),
        "version: 1\n" * (MAX_BYTES // 11),
        "version: 1\n" + "".join(f"k{n}: 1\n" for n in range(19_000)),
        "version: 1\nfrom:\n" + "".join(f"  c{n}: {{}}\n" for n in range(19_000)),
        "version: 1\nretries: {on: [" + "x," * 19_000 + "]}",
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        '{"version": ' + "1" * 100_000 + "}",
        "version: " + "1" * 100_000,
        "x" * (MAX_BYTES + 1),
    ],
    ids=lambda text: text[:12],
)
@pytest.mark.timeout(20)
def test_hostile_documents_are_refused_in_bounded_time(hostile):
    assert judged(hostile) is None

"""What is in force, and what changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshsdk.config import SERVICE_NAME
from meshsdk.errors import PolicyError
from meshsdk.policy.diff import Change, diff
from meshsdk.policy.document import BUILT_IN, Document, is_mesh_wide, parse
from meshsdk.policy.effective import DEFAULTS, check, dump, effective
from meshsdk.policy.sections import CALLER_NAME


def service(text: str, label: str = "payments@41") -> Document:
    return parse("version: 1\n" + text, "mesh/policy/payments", label)


def mesh(text: str) -> Document:
    return parse("version: 1\n" + text, "mesh/policy/_mesh", "_mesh@7")


def test_the_defaults_are_those_of_the_design():
    text = dump(DEFAULTS)
    assert text["timeouts"] == {"request": "15s", "attempt": "5s", "connect": "1s", "idle": "5m"}
    assert text["retries"]["on"] == ["connect-failure", "reset", 502, 503, 504]
    assert DEFAULTS.version == "defaults"
    assert text == {"version": 1, **BUILT_IN.content, "retries": text["retries"]}


def test_a_plan_that_is_dumped_is_read_back():
    assert effective("", "x", parse(str(dump(DEFAULTS)), "_mesh", "defaults"), None) == DEFAULTS


def test_the_version_names_every_document():
    assert effective("c", "payments", mesh(""), service("")).version == "payments@41+_mesh@7"
    assert effective("c", "payments", mesh(""), None).version == "_mesh@7"
    assert effective("c", "payments", None, service("")).version == "payments@41"
    assert effective("c", "payments", None, parse("version: 1", "mesh/policy/payments")).version == "payments"


def test_documents_do_not_change_when_they_are_merged():
    own, over = mesh("timeouts: {attempt: 4s}"), service("timeouts: {request: 2s}")
    first = effective("c", "payments", own, over)
    assert own.content == {"timeouts": {"attempt": "4s"}}
    assert effective("c", "payments", own, over) == first
    assert effective("c", "payments", own, None).timeouts.attempt == 4
    assert effective("", "", None, None) == DEFAULTS


def test_without_the_document_at_fault_the_others_merge():
    below, own = mesh("timeouts: {request: 2s}"), service("timeouts: {attempt: 3s}")
    with pytest.raises(PolicyError) as refused:
        effective("checkout", "payments", below, own)
    assert refused.value.source == own.source
    assert "2s (mesh/policy/_mesh)" in refused.value.mistakes[0]
    assert "calls of checkout to payments" in refused.value.mistakes[0]
    assert effective("checkout", "payments", below, None).timeouts.request == 2


def test_check_reports_every_caller_at_once():
    own = service(
        "timeouts: {attempt: 20s}\nfrom:\n  a: {retries: {backoff: {base: 1s}}}\n  b: {timeouts: {request: 30s}}"
    )
    with pytest.raises(PolicyError) as refused:
        check(None, own)
    assert [line.split(":")[0] for line in refused.value.mistakes] == [
        "timeouts.attempt",
        "from.a.retries.backoff.base",
    ]
    check(mesh("timeouts: {request: 1m}\nretries: {backoff: {max: 1s}}"), own)
    check(None, None)


def test_a_mesh_document_made_by_hand_may_not_have_callers():
    with pytest.raises(PolicyError, match=r"timeouts: `from` in `_mesh` has `egress` only"):
        effective("c", "payments", replace(mesh(""), callers={"c": {"timeouts": {}}}), None)


@pytest.mark.parametrize("source", ["_mesh", "mesh/policy/_mesh", "policies/_mesh.yaml", "_mesh.json"])
def test_the_name_says_that_it_is_for_the_mesh(source):
    assert is_mesh_wide(source)
    assert not is_mesh_wide(source.replace("_mesh", "mesh"))


def test_callers_are_named_like_services():
    assert CALLER_NAME.pattern == SERVICE_NAME.pattern


def test_diff_tells_effective_values():
    before = service("timeouts: {attempt: 4s}")
    after = service("timeouts: {request: 2s}\nretries: {attempts: 3}")
    assert diff(before, after) == [
        Change("timeouts.request", "15s", "2s"),
        Change("timeouts.attempt", "4s", "2s"),
    ]
    assert diff(after, after) == []
    assert diff(None, before) == [Change("timeouts.attempt", "5s", "4s")]
    assert diff(before, None) == [Change("timeouts.attempt", "4s", "5s")]


def test_diff_lists_a_caller_only_where_it_differs_from_all():
    before = service("from: {a: {retries: {attempts: 5}}, b: {timeouts: {idle: 1m}}}")
    after = service("retries: {attempts: 2}\nfrom: {a: {retries: {attempts: 4}}}")
    assert diff(before, after, mesh("timeouts: {idle: 2m}")) == [
        Change("retries.attempts", 3, 2),
        Change("from.a.retries.attempts", 5, 4),
        Change("from.b.timeouts.idle", "1m", "2m"),
    ]


def test_hundreds_of_mistakes_are_cut_off_with_their_number():
    with pytest.raises(PolicyError) as refused:
        service("".join(f"k{number}: 1\n" for number in range(300)))
    assert len(refused.value.mistakes) == 201
    assert refused.value.mistakes[-1] == "100 more; correct these first"


def test_long_values_are_shortened_in_messages():
    with pytest.raises(PolicyError, match="x…: not a duration"):
        service(f"timeouts: {{request: {'x' * 500}}}")

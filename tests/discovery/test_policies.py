"""Documents come and go; what is in force is always something good."""

from __future__ import annotations

import logging

import pytest

from meshsdk.discovery.memory import KeptDocument
from meshsdk.discovery.policies import Policies
from meshsdk_registry import KeyValue


def keys(index: int, **documents: str | bytes | None) -> list[KeyValue]:
    return [
        KeyValue(f"mesh/policy/{name}", text.encode() if isinstance(text, str) else text, index)
        for name, text in documents.items()
    ]


def request(seconds: int) -> str:
    return f"version: 1\ntimeouts: {{request: {seconds}s}}\n"


@pytest.fixture
def policies() -> Policies:
    found = Policies("checkout")
    found.use("payments", {})
    return found


def test_without_documents_the_defaults(policies):
    assert policies.plan("payments").version == policies.plan("never-used").version == "defaults"
    assert policies.received([]) == []
    assert policies.problem("payments") == ""


def test_a_document_is_adopted_and_its_deletion_too(policies):
    assert policies.received(keys(41, payments=request(3))) == ["payments"]
    assert (policies.plan("payments").version, policies.plan("payments").timeouts.request) == ("payments@41", 3)
    assert policies.received([]) == ["payments"]
    assert policies.plan("payments").version == "defaults"
    assert policies.documents("payments") == {}


def test_the_mesh_wide_one_reaches_all(policies):
    policies.use("orders", {})
    assert policies.received(keys(7, _mesh=request(4))) == ["payments", "orders"]
    assert policies.plan("orders").version == "_mesh@7"
    assert policies.received([*keys(7, _mesh=request(4)), *keys(8, orders=request(2))]) == ["orders"]
    assert policies.plan("orders").version == "orders@8+_mesh@7"


def test_from_is_for_this_caller(policies):
    text = request(9) + "from:\n  checkout:\n    timeouts: {request: 6s}\n  other:\n    timeouts: {request: 7s}\n"
    policies.received(keys(1, payments=text))
    assert policies.plan("payments").timeouts.request == 6


BAD = {
    "malformed": "version: 1\ntimeouts: {request: [",
    "unknown key": "version: 1\ntimeots: {request: 3s}",
    "binary": bytes(range(256)),
    "600 KiB": "version: 1\n#" + "x" * 600 * 1024,
    "empty": "",
    "no value": None,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_document_never_replaces_a_good_one_and_never_blocks_another(policies, caplog, bad):
    policies.use("orders", {})
    policies.received(keys(1, payments=request(3)))
    entries = [*keys(2, payments=bad), *keys(2, orders=request(5))]
    assert policies.received(entries) == ["orders"]
    assert policies.plan("payments").version == "payments@1"
    assert policies.problem("payments").startswith("payments@2 is rejected, payments@1 stays in force: ")
    assert policies.problem("orders") == ""
    policies.received(entries)
    assert caplog.text.count("payments@2 is rejected") == 1
    assert policies.documents("payments") == {"payments": KeptDocument(request(3), 1)}


def test_a_good_one_ends_the_problem(policies, caplog):
    caplog.set_level(logging.INFO)
    policies.received(keys(1, payments="nonsense"))
    assert policies.problem("payments").startswith("payments@1 is rejected, nothing of it is in force: ")
    assert policies.plan("payments").version == "defaults"
    policies.received(keys(2, payments=request(3)))
    assert (policies.problem("payments"), policies.plan("payments").version) == ("", "payments@2")
    assert "policy payments@2 adopted" in caplog.text


def test_deleting_a_bad_one_deletes_the_good_one_before_it(policies):
    policies.received(keys(1, payments=request(3)))
    policies.received(keys(2, payments="nonsense"))
    policies.received([])
    assert (policies.plan("payments").version, policies.problem("payments")) == ("defaults", "")


def test_documents_of_services_not_used_are_not_parsed(policies, caplog):
    assert policies.received(keys(1, unused="nonsense", payments=request(3))) == ["payments"]
    assert caplog.text == ""
    policies.use("unused", {})
    assert "unused@1 is rejected" in caplog.text


def test_a_service_used_later_gets_what_stands_in_kv(policies):
    policies.received(keys(1, orders=request(3)))
    policies.use("orders", {"orders": KeptDocument(request(8), 0)})
    assert policies.plan("orders").version == "orders@1"


def test_what_the_disk_remembers_holds_until_kv_answers():
    policies = Policies("checkout")
    policies.use("payments", {"payments": KeptDocument(request(3), 40), "_mesh": KeptDocument(request(9), 7)})
    assert policies.plan("payments").version == "payments@40+_mesh@7"
    policies.received(keys(40, payments=request(3)))
    assert policies.plan("payments").version == "payments@40"


def test_a_bad_document_at_a_cold_start_leaves_what_the_disk_remembers():
    policies = Policies("checkout")
    policies.use("payments", {"payments": KeptDocument(request(3), 40)})
    policies.received(keys(41, payments="nonsense"))
    assert policies.plan("payments").version == "payments@40"
    assert "payments@41 is rejected, payments@40 stays in force" in policies.problem("payments")


def test_a_memory_that_this_version_cannot_obey_is_said(caplog):
    policies = Policies("checkout")
    policies.use("payments", {"payments": KeptDocument("nonsense", 40)})
    assert policies.plan("payments").version == "defaults"
    assert "the policy remembered on disk is not used" in caplog.text


def test_documents_that_do_not_fit_together(policies, caplog):
    """Each is good alone; merged, a try would be allowed longer than its call."""
    mesh = "version: 1\ntimeouts: {request: 2s}\n"
    own = "version: 1\ntimeouts: {attempt: 4s}\n"
    policies.received(keys(1, _mesh=mesh))
    before = policies.plan("payments")
    assert before.version == "_mesh@1"
    assert policies.received([*keys(1, _mesh=mesh), *keys(2, payments=own)]) == []
    assert policies.plan("payments") == before
    assert "do not fit together" in policies.problem("payments")
    policies.use("payments", {})
    assert caplog.text.count("do not fit together") == 1


def test_documents_that_do_not_fit_together_at_the_start(policies):
    fresh = Policies("checkout")
    fresh.received(
        [
            *keys(1, _mesh="version: 1\ntimeouts: {request: 2s}\n"),
            *keys(2, payments="version: 1\ntimeouts: {attempt: 4s}\n"),
        ]
    )
    fresh.use("payments", {})
    assert fresh.plan("payments").version == "_mesh@1"

"""The own policy at a start: when it counts as known, and what the disk has to say where Consul does not answer."""

from __future__ import annotations

import logging
import socket
import time

import pytest

from meshsdk_registry import Consul, Denied, Unreachable
from tests.discovery.scripted import Scripted, until

STRICT = "version: 1\ntls: {mode: strict}\n"
AWAY = Unreachable("nobody answers")


def test_consuls_answer_opens_the_gate(directory, consul):
    consul.write(checkout=STRICT)
    found = directory()
    gate = found.own_gate()
    assert gate.wait(5)
    assert found.own_known()
    assert found.own_plan().tls == "strict"


def test_an_answer_without_documents_is_one(directory, consul):
    found = directory()
    assert found.own_gate().wait(5)
    assert found.own_known()
    assert found.own_plan().version == "defaults"


@pytest.mark.parametrize("failure", [AWAY, Denied("403")])
def test_without_consul_and_memory_nothing_is_known_and_nobody_waits_for_long(directory, consul, failure, tmp_path):
    consul.failure = failure
    found = directory(state_dir=tmp_path / "state")
    began = time.monotonic()
    assert found.own_gate().wait(5)
    assert time.monotonic() - began < 1.5
    assert not found.own_known()
    consul.write(checkout=STRICT)
    consul.failure = None
    until(lambda: found.own_plan().tls == "strict")
    assert found.own_known()


def test_a_silent_consul_is_waited_for_as_long_as_the_setting_says(directory):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = directory(lambda: Consul(url), first_wait=0.3)
        began = time.monotonic()
        assert found.own_gate().wait(5)
        assert 0.25 < time.monotonic() - began < 2
        assert not found.own_known()


def test_the_last_known_policy_holds_at_a_start_without_consul(directory, consul, tmp_path, caplog):
    consul.write(checkout=STRICT, _mesh="version: 1\ntelemetry: {access_log: all}\n")
    first = directory(state_dir=tmp_path / "state")
    assert first.own_gate().wait(5)
    first.close()
    assert (tmp_path / "state" / "checkout.own.json").exists()

    consul.failure = AWAY
    with caplog.at_level(logging.WARNING, "meshsdk.discovery"):
        second = directory(state_dir=tmp_path / "state")
        assert second.own_gate().wait(5)
    assert second.own_known()
    assert (second.own_plan().tls, second.own_plan().access_log) == ("strict", "all")
    assert caplog.text.count("policy remembered on disk is in force") == 1

    consul.write(checkout="version: 1\n")
    consul.failure = None
    until(lambda: second.own_plan().tls == "permissive")


def test_that_there_was_no_policy_is_remembered_too(directory, consul, tmp_path):
    first = directory(state_dir=tmp_path / "state")
    assert first.own_gate().wait(5)
    first.close()
    consul.failure = AWAY
    second = directory(state_dir=tmp_path / "state")
    assert second.own_gate().wait(5)
    assert second.own_known()


def test_what_consul_says_comes_before_the_disk(directory, consul, tmp_path):
    consul.write(checkout=STRICT)
    first = directory(state_dir=tmp_path / "state")
    assert first.own_gate().wait(5)
    first.close()
    consul.write()
    second = directory(state_dir=tmp_path / "state")
    assert second.own_gate().wait(5)
    assert second.own_plan().version == "defaults"


def test_a_bad_document_at_a_start_leaves_the_remembered_one_in_force(directory, consul, tmp_path):
    consul.write(checkout=STRICT)
    first = directory(state_dir=tmp_path / "state")
    assert first.own_gate().wait(5)
    first.close()
    consul.write(checkout="version: 1\ntls: {mode: stritc}\n")
    second = directory(state_dir=tmp_path / "state")
    assert second.own_gate().wait(5)
    assert second.own_plan().tls == "strict"


def test_what_is_remembered_of_a_service_by_its_callers_is_another_matter(directory, consul, tmp_path):
    """A process that calls its own service keeps both apart."""
    consul.write(checkout=STRICT)
    first = directory(state_dir=tmp_path / "state")
    assert first.own_gate().wait(5)
    first.close()
    assert not (tmp_path / "state" / "checkout.json").exists()


@pytest.mark.parametrize("away", [False, True])
def test_one_who_calls_others_first_knows_at_once(directory, consul, away):
    consul.place("payments")
    consul.policy_failure = AWAY if away else None
    found = directory()
    found.cluster("payments")
    assert found.own_gate().wait(5)
    assert found.own_known() is not away


def test_a_closed_directory_keeps_nobody_waiting(directory):
    found = directory()
    found.close()
    assert found.own_gate().is_open


def test_a_client_that_cannot_be_made_keeps_nobody_waiting(directory, caplog):
    def consul() -> Scripted:
        raise OSError("no such token file")

    found = directory(consul)
    assert found.own_gate().wait(5)
    assert not found.own_known()
    assert "no such token file" in caplog.text

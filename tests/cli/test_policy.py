"""`meshsdk policy …`: documents judged alone and together, and never half written."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

GOOD = "version: 1\ntimeouts: {request: 3s, attempt: 1s}\n"
LONG = "version: 1\ntimeouts: {attempt: 2s}\n"
TIGHT = "version: 1\ntimeouts: {request: 1s, attempt: 1s}\n"
WRONG = "version: 1\ntimeouts: {request: 2s, atempt: 1s}\nretries: {attempts: 0}\n"


@pytest.fixture
def files(tmp_path):
    """`files(payments=GOOD)`: paths of documents."""

    def writing(**texts: str) -> list[str]:
        for name, text in texts.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return [str(tmp_path / f"{name}.yaml") for name in texts]

    return writing


def stored(consul, name: str) -> bytes | None:
    entry = consul(lambda client: client.key(f"mesh/policy/{name}")).value
    return entry.value if entry else None


def test_validate_prints_every_mistake_of_every_file(run, files):
    ran = run("policy", "validate", *files(payments=GOOD, wrong=WRONG, stock="- a"))
    assert ran.code == 1
    assert "payments.yaml: fine" in ran.err
    assert "wrong.yaml: 2 mistakes" in ran.err
    assert "timeouts.atempt: unknown key; did you mean attempt? (line 2)" in ran.err
    assert "retries.attempts: 0: write 1 or more (line 3)" in ran.err
    assert "stock.yaml: 1 mistake" in ran.err


def test_validate_judges_services_over_the_mesh_file_among_them(run, files):
    ran = run("policy", "validate", "--json", *files(payments=LONG, _mesh=TIGHT, stock=GOOD))
    assert ran.code == 1
    found = {entry["file"].rpartition("/")[2]: entry["mistakes"] for entry in ran.json}
    assert found["_mesh.yaml"] == found["stock.yaml"] == []
    assert "longer than timeouts.request, 1s (mesh/policy/_mesh)" in found["payments.yaml"][0]
    assert run("policy", "validate", *files(payments=LONG)).code == 0


@pytest.mark.parametrize("name", ["Pay", "a b", "pay.ments", "-a"])
def test_a_file_whose_name_is_no_service_is_refused(run, files, name):
    ran = run("policy", "validate", *files(**{name: GOOD}))
    assert ran.code == 2
    assert "name the file <service>.yaml" in ran.err


def test_files_that_cannot_be_read_or_contradict_are_wrong_usage(run, files, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "payments.yaml").write_text(GOOD)
    assert "No such file" in run("policy", "validate", str(tmp_path / "none.yaml")).err
    ran = run("policy", "validate", *files(payments=GOOD), str(tmp_path / "b" / "payments.yaml"))
    assert (ran.code, "both for payments" in ran.err) == (2, True)


def test_apply_get_diff_delete(run, files, consul, agent):
    (path,) = files(payments=GOOD)
    ran = run("policy", "apply", path)
    assert (ran.code, ran.out) == (0, "  timeouts.request: 15s → 3s\n  timeouts.attempt: 5s → 1s\n")
    assert stored(consul, "payments") == GOOD.encode()
    assert "nothing changes" in run("policy", "apply", path).err

    assert run("policy", "get", "payments").out == GOOD
    found = run("policy", "get", "payments", "--json").json
    assert (found["text"], found["mistakes"]) == (GOOD, [])
    values = yaml.safe_load(run("policy", "get", "payments", "--effective").out)
    assert (values["policy"], values["timeouts"]["request"]) == (found["policy"], "3s")

    assert run("policy", "diff", "payments", path).code == 0
    (other,) = files(payments="version: 1\nfrom: {batch: {timeouts: {request: 60s}}}\n")
    ran = run("policy", "diff", "payments", other, "--json")
    assert ran.code == 1
    assert {change["path"] for change in ran.json} == {
        "timeouts.request",
        "timeouts.attempt",
        "from.batch.timeouts.request",
    }

    assert run("policy", "delete", "payments").code == 0
    assert stored(consul, "payments") is None
    for ran in (run("policy", "delete", "payments"), run("policy", "get", "payments")):
        assert (ran.code, "no document" in ran.err) == (1, True)
    assert "`meshsdk policy get payments --effective`" in run("policy", "get", "payments").err


def test_apply_refuses_a_document_with_mistakes_and_writes_none(run, files, consul, agent):
    ran = run("policy", "apply", *files(stock=GOOD, payments=WRONG))
    assert ran.code == 1
    assert "payments.yaml: 2 mistakes" in ran.err
    assert stored(consul, "stock") is None


def test_apply_refuses_a_mesh_over_which_others_no_longer_fit(run, files, consul, agent):
    assert run("policy", "apply", *files(payments=LONG, stock=GOOD, orders=LONG)).code == 0
    ran = run("policy", "apply", *files(_mesh=TIGHT))
    assert ran.code == 1
    assert "orders, payments would no longer fit" in ran.err
    assert "mesh/policy/payments: timeouts.attempt: 2s: longer than" in ran.err
    assert stored(consul, "_mesh") is None
    # Together with documents that fit, it is taken.
    assert run("policy", "apply", *files(_mesh=TIGHT, payments=TIGHT, orders=TIGHT)).code == 0
    assert stored(consul, "orders") == TIGHT.encode()


def test_a_service_that_does_not_fit_over_the_mesh_is_refused(run, files, consul, agent):
    assert run("policy", "apply", *files(_mesh=TIGHT)).code == 0
    for command in (("apply",), ("diff", "payments")):
        ran = run("policy", *command, *files(payments=LONG))
        assert ran.code == 1
        assert "payments.yaml, over mesh/policy/_mesh: 1 mistake" in ran.err
    assert stored(consul, "payments") is None


def test_a_mesh_on_which_others_stand_is_not_deleted(run, files, agent):
    wide = "version: 1\ntimeouts: {request: 60s}\n"
    assert run("policy", "apply", *files(_mesh=wide, payments="version: 1\ntimeouts: {attempt: 30s}\n")).code == 0
    ran = run("policy", "delete", "_mesh")
    assert ran.code == 1
    assert "_mesh, deleted: payments would no longer fit" in ran.err


def test_what_did_not_fit_before_does_not_hinder(run, files, consul, agent):
    consul(lambda client: client.put("mesh/policy/_mesh", TIGHT.encode()))
    consul(lambda client: client.put("mesh/policy/payments", LONG.encode()))
    assert run("policy", "apply", *files(_mesh="version: 1\ntimeouts: {request: 1500ms, attempt: 1s}\n")).code == 0


def test_apply_replaces_a_rejected_document_and_says_so(run, files, consul, agent):
    consul(lambda client: client.put("mesh/policy/payments", b"version: 9"))
    ran = run("policy", "get", "payments")
    assert (ran.code, ran.out) == (1, "version: 9")
    assert "every process goes on with its last good one" in ran.err
    ran = run("policy", "apply", *files(payments=GOOD))
    assert ran.code == 0
    assert "replaces a document that every process rejected: version: 9" in ran.err


@pytest.mark.parametrize("names", [["payments"], ["payments", "stock"]])
def test_somebody_elses_write_meanwhile_is_not_overwritten(run, files, consul, monkeypatch, names):
    """Between our reading and our writing somebody else writes; Consul's check-and-set tells."""
    from meshsdk.cli import policy_change

    looked = policy_change.documents

    async def late(client):
        found = await looked(client)
        await client.put("mesh/policy/payments", b"version: 1")
        return found

    monkeypatch.setattr(policy_change, "documents", late)
    ran = run("policy", "apply", *files(**dict.fromkeys(names, GOOD)))
    assert ran.code == 1
    assert "changed by somebody else just now, nothing was written" in ran.err
    assert stored(consul, "payments") == b"version: 1"
    assert stored(consul, "stock") is None


def test_a_binary_document_comes_out_as_it_is(run, consul, agent):
    consul(lambda client: client.put("mesh/policy/payments", b"\xff\x00\x1b[31m"))
    ran = run("policy", "get", "payments", "--json")
    assert ran.code == 1
    assert "not text in UTF-8" in ran.json["mistakes"][0]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("policy", "get", "a b"), "'a b' is no service's name"),
        (("policy", "get", "../x"), "no service's name"),
        (("policy", "delete", ""), "no service's name"),
        (("policy", "get", "payments", "--caller", "x"), "add --effective"),
        (("policy", "apply", "a.yaml", "b.yaml", "--service", "x"), "give one file"),
        (("policy", "bogus"), "No such command"),
        (("endpoints", "a/b"), "spaces and slashes cannot be part"),
    ],
)
def test_wrong_usage_is_2_and_says_what_to_write(run, agent, args, said):
    ran = run(*args)
    assert (ran.code, said in ran.err) == (2, True), ran.err


def test_schema_is_one(run):
    for options in ((), ("--mesh-wide",)):
        ran = run("policy", "schema", *options)
        jsonschema.Draft202012Validator.check_schema(json.loads(ran.out))

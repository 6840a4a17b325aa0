"""The schema takes what the parser takes, and is printed from the same models; so is the reference."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from meshsdk.errors import PolicyError
from meshsdk.policy.document import parse
from meshsdk.policy.effective import DEFAULTS, dump
from meshsdk.policy.reading import read
from meshsdk.policy.reference import reference
from meshsdk.policy.schema import schema

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ONLY_THE_PARSER = {  # what a schema cannot say
    "timeouts/attempt_over_request",
    "timeouts/connect_over_attempt",
    "retries/base_over_max",
    "outlier_detection/base_over_max",
    "document/bounds_in_callers",
    "document/written_twice",
    "document/json_written_twice",
}


def documents():
    for path in sorted(HERE.glob("*/*.yaml")):
        try:
            yield f"{path.parent.name}/{path.stem}", path, read(path.read_bytes(), path.stem).value
        except PolicyError:  # no values to judge
            continue


def complaints(value: object, *, mesh_wide: bool = False) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(schema(mesh_wide=mesh_wide)).iter_errors(value)]


def is_good(path: Path) -> bool:
    try:
        parse(path.read_bytes(), "payments")
    except PolicyError:
        return False
    return True


@pytest.mark.parametrize(("name", "path", "value"), [pytest.param(*case, id=case[0]) for case in documents()])
def test_schema_and_parser_agree(name, path, value):
    assert is_good(path) == (complaints(value) == [] and name not in ONLY_THE_PARSER)


def test_the_schemas_are_schemas():
    for mesh_wide in (True, False):
        jsonschema.Draft202012Validator.check_schema(schema(mesh_wide=mesh_wide))


def test_the_defaults_are_good():
    text = dump(DEFAULTS)
    assert complaints(text, mesh_wide=True) == []
    del text["egress"]
    assert complaints(text) == []


@pytest.mark.parametrize(("part", "mesh_wide"), [({"timeouts": {}}, False), ({"egress": {}}, True)])
def test_callers_have_parts_of_their_own(part, mesh_wide):
    for document in ({"version": 1, "from": {"a": part}}, {"version": 1, **part}):
        assert complaints(document, mesh_wide=mesh_wide) == []
    assert complaints({"version": 1, "from": {"a": part}}, mesh_wide=not mesh_wide)
    assert complaints({"version": 1, "from": {"a": {"tls": {}}}}, mesh_wide=mesh_wide)


def test_every_key_is_described():
    for section in schema()["$defs"].values():
        assert all(field.get("description") for field in section["properties"].values())
        assert section["additionalProperties"] is False


def test_the_reference_is_up_to_date():
    known = (ROOT / "docs/policy.md").read_text(encoding="utf-8")
    assert known == reference(), "run: .venv/bin/python -m meshsdk.policy.reference > docs/policy.md"

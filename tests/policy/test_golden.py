"""Every document under this folder, and what it comes to, which stands beside it in `<name>.golden.json`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from meshsdk.core.plan import Plan
from meshsdk.errors import PolicyError
from meshsdk.policy.diff import flat
from meshsdk.policy.document import parse
from meshsdk.policy.effective import DEFAULTS, dump, effective

HERE = Path(__file__).parent
UPDATE = "UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/policy"
UPDATING = os.environ.get("UPDATE_GOLDEN") == "1"
DOCUMENTS = sorted(path for path in HERE.glob("*/*.yaml"))
MERGES = sorted(path for path in HERE.glob("merge/*") if path.is_dir())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_document(path):
    compare(path.with_suffix(".golden.json"), outcome(path))


@pytest.mark.parametrize("folder", MERGES, ids=lambda path: path.name)
def test_merge(folder):
    compare(folder / "effective.golden.json", {caller: merged(folder, caller) for caller in ("anyone", "checkout")})


def test_no_golden_file_is_left_of_a_document_that_is_gone():
    known = {path.with_suffix(".golden.json") for path in DOCUMENTS} | {f / "effective.golden.json" for f in MERGES}
    stale = sorted(set(HERE.rglob("*.golden.json")) - known)
    for path in stale if UPDATING else ():
        path.unlink()
    assert UPDATING or stale == [], f"remove them, or run: {UPDATE}"


def outcome(path: Path) -> dict:
    try:
        own = parse(path.read_bytes(), "mesh/policy/payments", "payments@41")
        plans = {caller: told(effective(caller, "payments", None, own)) for caller in ("anyone", *own.callers)}
    except PolicyError as refused:
        return {"source": refused.source, "mistakes": list(refused.mistakes)}
    return plans


def merged(folder: Path, caller: str) -> dict:
    mesh, own = folder / "_mesh.yaml", folder / "payments.yaml"
    try:
        return told(
            effective(
                caller,
                "payments",
                parse(mesh.read_bytes(), "mesh/policy/_mesh", "_mesh@7") if mesh.exists() else None,
                parse(own.read_bytes(), "mesh/policy/payments", "payments@41") if own.exists() else None,
            )
        )
    except PolicyError as refused:
        return {"source": refused.source, "mistakes": list(refused.mistakes)}


def told(plan: Plan) -> dict:
    """A plan as golden files have it: its version and what differs from the defaults."""
    usual = flat(dump(DEFAULTS))
    return {"version": plan.version, "differs": {k: v for k, v in flat(dump(plan)).items() if usual[k] != v}}


def compare(path: Path, value: object) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    if UPDATING:
        path.write_text(text, encoding="utf-8")
    known = path.read_text(encoding="utf-8") if path.exists() else ""
    assert known == text, f"{path.relative_to(HERE)} says otherwise; if the new result is right, run: {UPDATE}"

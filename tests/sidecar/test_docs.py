"""docs/sidecar.md: the keys of the file and their defaults are those of the code, and its examples are taken."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from meshsdk.config import _VARIABLES
from meshsdk_sidecar import config
from meshsdk_sidecar.file import load
from meshsdk_sidecar.pages import LEVELS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/sidecar.md").read_text()
SECTIONS = {
    "service": config.Service,
    "service.health": config.HealthCheck,
    "inbound": config.Inbound,
    "outbound": config.Outbound,
    "upstreams": config.Upstream,
    "admin": config.Admin,
    "probes": config.Probes,
    "consul": config.ConsulSection,
    "identity": config.IdentitySection,
    "drain": config.Drain,
    "limits": config.LimitsSection,
}


def rows(text: str) -> list[list[str]]:
    """The cells of a table, its head left out."""
    lines = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip(" |") for cell in line] for line in lines[2:]]


def written() -> dict[str, list[list[str]]]:
    """Tables by their sections."""
    parts = re.split(r"^### `([a-z.]+)`$", TEXT.partition("\n### And\n")[0], flags=re.MULTILINE)
    return {name: rows(text) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_every_section_and_every_key_beside_them_is_described():
    assert written().keys() == SECTIONS.keys()
    fields = {field.name: field for field in dataclasses.fields(config.Config)}
    assert {name for name in SECTIONS if "." not in name} <= fields.keys()
    single = fields.keys() - SECTIONS.keys()
    told = {row[0].strip("`"): row[1].strip("`") for row in rows(TEXT.partition("### And\n")[2].partition("\n## ")[0])}
    assert {name: str(fields[name].default) for name in single}.items() <= told.items()


@pytest.mark.parametrize("name", SECTIONS)
def test_keys_are_those_of_the_code_in_its_order(name):
    keys = [row[0].strip("`") for row in written()[name]]
    assert keys == [field.name for field in dataclasses.fields(SECTIONS[name])]


@pytest.mark.parametrize("name", SECTIONS)
def test_defaults_are_those_of_the_code(name):
    for row, field in zip(written()[name], dataclasses.fields(SECTIONS[name]), strict=True):
        key, default, meaning = (*row, "")[:3]
        if default == "see below":
            assert field.default == SECTIONS[f"{name}.{field.name}"]()
        elif default == "required":
            assert field.default is field.default_factory is dataclasses.MISSING, key
        elif default in {"none", "from the environment"}:
            assert field.default is None, key
            assert (default == "from the environment") == ("(`" in meaning), "and the variable is named"
        else:
            mistakes: list[object] = []
            value = field.metadata["form"].take(yaml.safe_load(default.strip("`")), (), mistakes)
            assert (value, mistakes) == (field.default, []), key


def test_the_variable_that_is_named_for_a_key_sets_the_same():
    plain = config.Config(service=config.Service(name="a"))
    checked = 0
    for name, table in written().items():
        for row in table:
            if named := re.search(r"\(`([A-Z_]+)`", row[-1]):
                given = {row[0].strip("`"): "given"}
                found = {name: SECTIONS[name](**({"name": "a"} if name == "service" else {}), **given)}
                overrides = dataclasses.replace(plain, **found).overrides()
                (changed,) = (each for each, value in overrides.items() if value != plain.overrides()[each])
                assert _VARIABLES[named[1]][0] == changed
                checked += 1
    assert checked == 15


def test_its_files_are_taken(tmp_path):
    files = [each for each in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if each.startswith("#")]
    inline = re.findall(r"`(upstreams: \[.*?\])`", TEXT)
    assert files
    assert inline
    for number, text in enumerate([*files, *(f"service: {{name: a}}\n{each}" for each in inline)]):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        load(file)


def test_its_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / "docs" / link).exists(), link


def test_log_levels_are_known():
    assert "debug" in LEVELS
    assert '{"level": "debug"}' in TEXT

"""docs/gateway.md: the keys of the file and their defaults are those of the code, and its example is taken."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from meshsdk.policy.reading import read
from meshsdk_sidecar.gateway import config
from meshsdk_sidecar.gateway.file import load
from tests.sidecar.test_docs import rows

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs/gateway.md").read_text()
SECTIONS = {
    "service": config.GatewayService,
    "listeners.https": config.Https,
    "listeners.http": config.Http,
    "certificates": config.CertificateSection,
    "routes": config.RouteSection,
    "path": config.PathSection,
    "headers": config.HeadersSection,
    "limits": config.GatewayLimits,
    "drain": config.Drain,
}


def written() -> dict[str, list[list[str]]]:
    """Tables by their sections."""
    parts = re.split(r"^### `([a-z.]+)`$", TEXT.partition("\n### And\n")[0], flags=re.MULTILINE)
    return {name: rows(text) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_every_section_is_described():
    assert written().keys() == SECTIONS.keys()
    rest = {"listeners", "admin", "probes", "consul", "identity", "trusted_proxies", "workers"}
    tops = {name.partition(".")[0] for name in SECTIONS} - {"path"}
    assert tops | rest == {field.name for field in dataclasses.fields(config.GatewayConfig)}


@pytest.mark.parametrize("name", SECTIONS)
def test_keys_and_defaults_are_those_of_the_code(name):
    table, fields = written()[name], dataclasses.fields(SECTIONS[name])
    assert [row[0].strip("`") for row in table] == [field.name for field in fields]
    for row, field in zip(table, fields, strict=True):
        if row[1] == "required":
            assert field.default is field.default_factory is dataclasses.MISSING, row
        elif row[1] == "see below":
            assert field.default == config.PathSection(), row
        elif row[1] in {"none", "from the environment"}:
            assert field.default is None, row
        else:
            mistakes: list[object] = []
            value = field.metadata["form"].take(read(f"x: {row[1].strip('`')}", "").value["x"], (), mistakes)
            assert (value, mistakes) == (field.default, []), row


def test_its_file_is_taken(tmp_path, issuer):
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "edge.yaml").write_text(text.replace("/etc/tls", str(issuer.folder)))
    config = load(tmp_path / "edge.yaml")
    assert [route.to for route in config.routes] == ["web", "payments"]


def test_its_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / "docs" / link).exists(), link

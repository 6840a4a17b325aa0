"""The reference of policy documents as Markdown, from the models' own words: `python -m meshsdk.policy.reference`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from meshsdk.policy import bounds
from meshsdk.policy.effective import DEFAULTS, dump
from meshsdk.policy.refused import NOT_ENFORCED, REFUSED, UNENFORCED_CONDITIONS
from meshsdk.policy.schema import schema
from meshsdk.policy.section import Section
from meshsdk.policy.sections import Sections

__all__ = ["reference"]

_OPENING = """# Policy documents

<!-- Written from the field descriptions in `meshsdk/policy` by
     `python -m meshsdk.policy.reference > docs/policy.md` -->

A policy says how callers treat a service, and whom the service lets in. It stands in Consul KV, as YAML or JSON of at
most 512 KiB:

| key | holds for |
|---|---|
| `mesh/policy/_mesh` | calls to every service; `egress`, under `from:` too, for calls out of the mesh |
| `mesh/policy/<service>` | calls to that service; its `from:` section for single callers |

Later wins: built-in defaults, `_mesh`, the service's document, its `from.<caller>`. Mappings are merged key by key,
lists and single values replace what was there; only `authorization.rules` are joined. A key that is left out keeps its
value.

A document is taken as a whole or refused as a whole. A refused one changes nothing: the last good one stays in force.
An unknown key is a mistake, and so is a key that would have no effect.

```yaml
version: 1
timeouts: {request: 3s}
from:
  checkout:
    timeouts: {request: 10s}        # calls of checkout may take longer
```

**Durations** are a number with one unit, `ms`, `s`, `m` or `h`: `250ms`, `1.5s`, `5m`. **Words** need no quotes: `on`
and `off` are words here, as in YAML 1.2.
"""


def reference() -> str:
    """The whole reference."""
    parts = [_OPENING, *_sections(Sections), _merge_rules(), _all_defaults(), _refused()]
    return "\n".join(parts).rstrip("\n") + "\n"


def _sections(model: type[Section], prefix: str = "") -> Iterator[str]:
    for section, keys in _below(model).items():
        paths = [prefix + key for key in keys]
        yield _section(paths, section)
        yield from _sections(section, f"{paths[0]}.")


def _below(model: type[Section]) -> dict[type[Section], list[str]]:
    """The sections under a section, each with the keys that hold one: `deny`, `rules[]` of a list, `headers.<name>`."""
    found: dict[type[Section], list[str]] = {}
    properties = schema(mesh_wide=True)["$defs"].get(model.__name__, {}).get("properties", {})
    many = model.items()
    for key, section in model.fields().items():
        if section:
            found.setdefault(section, []).append(key)
        elif key in many:
            found.setdefault(many[key], []).append(key + _MANY[properties[key]["type"]])
    return found


_MANY = {"array": "[]", "object": ".<name>"}


def _section(paths: list[str], section: type[Section]) -> str:
    heading = "##" + "#" * paths[0].count(".") + " " + ", ".join(f"`{path}`" for path in paths)
    known = schema(mesh_wide=True)["$defs"][section.__name__]["properties"]
    rows = [_row(key, known[key]) for key, below in section.fields().items() if not below]
    table = ["| key | takes | default | meaning |", "|---|---|---|---|", *rows] if rows else []
    return "\n".join([heading, "", inspect.cleandoc(section.__doc__ or ""), "", *table, ""])


def _row(key: str, field: Mapping[str, Any]) -> str:
    return f"| `{key}` | {_takes(field)} | {_default(field)} | {field['description']} |"


def _takes(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    plain = {"array": "list", "object": "keys and values", "boolean": "`true` or `false`"}
    if field.get("type") in plain:
        return plain[field["type"]]
    if field.get("type") == "string":
        return "text" if field["default"] is None else "duration"
    if field.get("type") in {"integer", "number"}:
        kind = "whole number" if field["type"] == "integer" else "number"
        return f"{kind}, {field['minimum']:g} to {field['maximum']:,.0f}"
    return "duration or `0`" if "anyOf" in field else "duration"


def _default(field: Mapping[str, Any]) -> str:
    value = field["default"]
    if value is None:
        return "left out"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`[{', '.join(map(str, value))}]`" if isinstance(value, list) else f"`{value}`"


def _merge_rules() -> str:
    rules = [f"- `{inner}` fits into `{outer}`" for inner, outer in bounds.BOUNDS]
    return "\n".join(
        [
            "## Values that must fit into others",
            "",
            *rules,
            "",
            "The later document decides. Where it lowers the outer value, the inner one shrinks with it:",
            "`timeouts: {request: 2s}` over the default attempt of 5s is a call of 2s whose attempts may take all of",
            "it. Where it raises the inner value above the outer one, or gives both, it is refused: the inner value",
            "would read as if it did something, and never take effect.",
            "",
        ]
    )


def _all_defaults() -> str:
    text = yaml.safe_dump(dump(DEFAULTS), sort_keys=False, default_flow_style=None, width=110)
    return f"## All defaults\n\n```yaml\n{text}```\n"


def _refused() -> str:
    keys = [f"`{path}`" for path, why in REFUSED.items() if why == NOT_ENFORCED]
    conditions = [f"`{name}`" for name in sorted(UNENFORCED_CONDITIONS)]
    return (
        "## Not enforced yet, and therefore refused\n\n"
        f"Keys: {', '.join(keys)}.\n\nIn `retries.on`: {', '.join(conditions)}; write status codes.\n"
    )


if __name__ == "__main__":
    sys.stdout.write(reference())

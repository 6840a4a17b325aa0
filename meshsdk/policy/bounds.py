"""Values that must fit into others, within one document and across the merge.

A value that exceeds its bound is a dead setting: it reads as if it did something and never does (Kuma ships an attempt
timeout of 16 s under a request timeout of 15 s). Who wrote last decides what that means:

- The bound was written later: it narrows on purpose, and what it bounds shrinks with it. `timeouts: {request: 2s}` over
  the built-in attempt of 5 s is a call of 2 s whose attempts may take all of it.
- The bounded value was written later, or in the same document: nobody writes `attempt: 20s` to get 15 s, so the later
  document is wrong and is told to raise the bound too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshsdk.policy.durations import seconds

__all__ = ["BOUNDS", "Layer", "merge"]

# The bound comes second. Outer bounds first, so that a mistake names the value that somebody wrote.
BOUNDS = (
    ("timeouts.attempt", "timeouts.request"),
    ("timeouts.connect", "timeouts.request"),
    ("timeouts.connect", "timeouts.attempt"),
    ("retries.backoff.base", "retries.backoff.max"),
    ("outlier_detection.base_ejection", "outlier_detection.max_ejection"),
)
_NO_LIMIT = frozenset({"timeouts.attempt", "timeouts.request", "timeouts.connect"})  # where 0 means none


@dataclass(frozen=True, slots=True)
class Layer:
    """Sections as one author wrote them.

    Attributes:
        name: whose they are, for messages, such as `the built-in default` or `mesh/policy/_mesh`.
        content: the sections, plain values.
        prefix: where they stand in the document, such as `from.checkout.`.
    """

    name: str
    content: Mapping[str, Any]
    prefix: str = ""


@dataclass(slots=True)
class _Value:
    text: object
    seconds: float
    layer: int


def merge(layers: Sequence[Layer]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Merge layers, later over earlier: mappings key by key, everything else whole.

    Returns:
        The merged sections, and for each value beyond its bound the path in the document of the layer that wrote it
        and what is wrong. Values that are no durations are left to the models.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _over(merged, layer.content)
    return merged, _settle(merged, layers)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        result[key] = _over(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return result


def _settle(merged: dict[str, Any], layers: Sequence[Layer]) -> list[tuple[str, str]]:
    values = {path: _find(path, layers) for pair in BOUNDS for path in pair}
    mistakes: dict[str, str] = {}
    for path, bound_path in BOUNDS:
        value, bound = values[path], values[bound_path]
        if value is None or bound is None or path in mistakes or not _exceeds(path, value, bound):
            continue
        if bound.layer > value.layer:
            values[path] = bound
            _put(merged, path, bound.text)
        else:
            mistakes[path] = _complaint(value, bound, bound_path, layers)
    return [(layers[v.layer].prefix + path, why) for path, why in mistakes.items() if (v := values[path])]


def _exceeds(path: str, value: _Value, bound: _Value) -> bool:
    unlimited = path in _NO_LIMIT and 0 in {value.seconds, bound.seconds}
    return not unlimited and value.seconds > bound.seconds


def _complaint(value: _Value, bound: _Value, bound_path: str, layers: Sequence[Layer]) -> str:
    name = layers[bound.layer].name
    whose = "" if name == layers[value.layer].name else f" ({name})"
    return (
        f"{value.text}: longer than {bound_path}, {bound.text}{whose}, and would never take effect;"
        f" shorten it or raise {bound_path}"
    )


def _find(path: str, layers: Sequence[Layer]) -> _Value | None:
    for number in reversed(range(len(layers))):
        text = _get(layers[number].content, path)
        if text is not None:
            try:
                return _Value(text, seconds(text), number)
            except ValueError:
                return None
    return None


def _get(content: Mapping[str, Any], path: str) -> object:
    here: object = content
    for key in path.split("."):
        here = here.get(key) if isinstance(here, Mapping) else None
    return here


def _put(content: dict[str, Any], path: str, value: object) -> None:
    *sections, key = path.split(".")
    for section in sections:
        content[section] = dict(content[section])  # the layers stay as they were
        content = content[section]
    content[key] = value

"""A document's bytes to plain values with their line numbers: YAML 1.2's core types or JSON, nothing clever.

Rule 1: text is taken as its author meant it. PyYAML reads YAML 1.1, where the key `on` is the boolean true and `off`
is false; here only `true`, `false`, `null` and numbers are not text (YAML 1.2.2, 10.3).
Rule 2: nothing is lost on the way. A key written twice, a tag, a second document are mistakes.
Rule 3: time and memory are bounded by the size of the text: events are read one by one, depth and number of values
are limited, and an alias counts as all it stands for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from meshsdk.errors import PolicyError

__all__ = ["MAX_BYTES", "Mistake", "Path", "Reading", "path_text", "read"]

MAX_BYTES = 512 * 1024
"""Consul takes no larger value (`limits.kv_max_value_size`)."""

# A document that sets ten keys for each of a thousand callers has 15,000 values; nothing legitimate is deeper than 6.
_MAX_VALUES = 20_000
_MAX_DEPTH = 32

_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where PyYAML was built with it: 20 times faster

Path = tuple[str | int, ...]
Mistake = tuple[Path, str]


class _Unreadable(Exception):
    """The text as a whole cannot be taken; says why."""


@dataclass(slots=True)
class Reading:
    """What stands in a document.

    Attributes:
        value: plain dicts, lists, text, numbers.
        lines, columns: where each value stands, counted from 1; empty for JSON.
        mistakes: path and what is wrong, such as keys written twice.
    """

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    columns: dict[Path, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)


def read(text: bytes | str, source: str, *, least: str = "version: 1", placed: bool = False) -> Reading:
    """Read YAML or JSON.

    Args:
        least: what an empty text is advised to hold.
        placed: read JSON as YAML, which it nearly always is, so that its values have lines and columns too.

    Raises:
        PolicyError: the text cannot be read at all; names line and column where there are any.
    """
    try:
        decoded = _decode(text)
        if not placed and decoded.lstrip().startswith("{") and (found := _read_json(decoded)) is not None:
            return found
        return _Events(decoded, least).read()
    except _Unreadable as refusal:
        raise PolicyError(source, [str(refusal)]) from None
    except yaml.YAMLError as broken:
        raise PolicyError(source, [_yaml_problem(broken)]) from broken


def path_text(path: Path) -> str:
    """A path as messages write it: `retries.on[2]`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def _decode(text: bytes | str) -> str:
    try:
        raw = text.encode() if isinstance(text, str) else text
        if len(raw) > MAX_BYTES:
            raise _Unreadable(f"{len(raw)} bytes: Consul keeps at most {MAX_BYTES} in one key; shorten the document")
        return raw.decode("utf-8-sig")
    except (UnicodeDecodeError, UnicodeEncodeError) as broken:
        raise _Unreadable(f"not text in UTF-8 ({broken.reason} at {broken.start}); write YAML or JSON") from None


def _yaml_problem(broken: yaml.YAMLError) -> str:
    if isinstance(broken, yaml.reader.ReaderError):
        return f"character {broken.position + 1}: not printable text; write YAML or JSON"
    mark = getattr(broken, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = getattr(broken, "problem", None) or str(broken)
    advice = "indent with spaces" if "tab" in problem or "\\t" in problem else "correct the YAML there"
    return f"{where}{problem}; {advice}"


# --- JSON: text in `{` … `}` that Python's own reader takes -------------------------------------------


class _Pairs(list[tuple[str, Any]]):
    """An object's members in order, twice written ones included."""


def _read_json(text: str) -> Reading | None:
    """None where it is not JSON: YAML's `{a: b}` starts like it."""
    try:
        value = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    reading = Reading()
    budget = iter(range(_MAX_VALUES))
    reading.value = _plain(value, (), reading, budget)
    return reading


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _plain(value: Any, path: Path, reading: Reading, budget: Iterator[int]) -> Any:
    _spend(path, budget)
    if isinstance(value, _Pairs):
        result: dict[str, Any] = {}
        for key, member in value:
            if key in result:
                reading.mistakes.append(((*path, key), "written twice; keep one"))
            result[key] = _plain(member, (*path, key), reading, budget)
        return result
    if isinstance(value, list):
        return [_plain(item, (*path, number), reading, budget) for number, item in enumerate(value)]
    return value


def _spend(path: Path, budget: Iterator[int], values: int = 1) -> None:
    if len(path) > _MAX_DEPTH:
        raise _Unreadable(f"{path_text(path[:3])}…: nested deeper than {_MAX_DEPTH} levels; no key of a policy is")
    if any(next(budget, None) is None for _ in range(values)):
        raise _Unreadable(
            f"more than {_MAX_VALUES} values, aliases counted as what they stand for; shorten the document"
        )


# --- YAML --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Anchor:
    value: Any
    size: int


class _Events:
    """One pass over libyaml's events; a descent per level, bounded by `_MAX_DEPTH`."""

    def __init__(self, text: str, least: str) -> None:
        self._events = iter(yaml.parse(text, Loader=_LOADER))
        self._least = least
        self._anchors: dict[str, _Anchor] = {}
        self._reading = Reading()
        self._budget = iter(range(_MAX_VALUES))
        self._spent = 0

    def read(self) -> Reading:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise _Unreadable(f"empty; write at least `{self._least}`")
        self._reading.value = self._value(next(self._events), ())
        next(self._events)  # the document's end
        if not isinstance(extra := next(self._events), yaml.StreamEndEvent):
            raise _Unreadable(f"line {_line(extra)}: a second document begins; one key holds one document")
        return self._reading

    def _value(self, event: yaml.Event, path: Path) -> Any:
        if path not in self._reading.lines:
            self._place(event, path)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        self._spend(path)
        before = self._spent
        value = self._plain(event, path)
        if anchor := getattr(event, "anchor", None):
            self._anchors[anchor] = _Anchor(value, self._spent - before + 1)
        return value

    def _plain(self, event: yaml.Event, path: Path) -> Any:
        self._no_tag(event, path)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return [
                self._value(item, (*path, number)) for number, item in enumerate(self._until(yaml.SequenceEndEvent))
            ]
        assert isinstance(event, yaml.ScalarEvent)  # no other event starts a value
        return _scalar(event.value) if event.implicit[0] else event.value

    def _mapping(self, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for event in self._until(yaml.MappingEndEvent):
            key = self._key(event, path)
            self._place(event, (*path, key))
            value = self._value(next(self._events), (*path, key))
            if key in result:
                self._wrong((*path, key), "written twice; keep one")
            result[key] = value
        return result

    def _key(self, event: yaml.Event, path: Path) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise _Unreadable(f"line {_line(event)}: a key must be a word, not a mapping, list or alias")
        self._no_tag(event, (*path, event.value))
        if event.implicit[0] and not isinstance(_scalar(event.value), str):
            self._wrong((*path, event.value), "a key must be text; put it in quotes")
        return event.value

    def _alias(self, event: yaml.AliasEvent, path: Path) -> Any:
        anchor = self._anchors.get(event.anchor or "")
        if anchor is None:
            raise _Unreadable(f"line {_line(event)}: *{event.anchor} stands for nothing that ended before it")
        self._spend(path, anchor.size)
        return anchor.value

    def _no_tag(self, event: yaml.Event, path: Path) -> None:
        if tag := getattr(event, "tag", None):
            name = tag.replace("tag:yaml.org,2002:", "!!")
            self._wrong(path, f"{name}: tags are not taken; write the plain value")

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        return iter(lambda: None if isinstance(event := next(self._events), end) else event, None)

    def _spend(self, path: Path, values: int = 1) -> None:
        _spend(path, self._budget, values)
        self._spent += values

    def _place(self, event: yaml.Event, path: Path) -> None:
        self._reading.lines[path] = _line(event)
        self._reading.columns[path] = event.start_mark.column + 1 if event.start_mark else 0

    def _wrong(self, path: Path, why: str) -> None:
        self._reading.mistakes.append((path, why))


def _scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if not _NUMBER.fullmatch(text) or len(text) > 32:
        return text
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0
